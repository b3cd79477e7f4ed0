"""A callback of your own: it is given each record that the run writes, on the first worker.

    raytricks train data.source=digits 'callbacks=[examples/own_callback.py:BestSoFar]' recipe.epochs=5

From Python, `raytricks.train(..., callbacks=[BestSoFar()])` keeps the object in your process.
"""

from typing import Any


class BestSoFar:
    """Says when an epoch is the best one yet."""

    def __init__(self) -> None:
        self.best = 0.0

    def record(self, record: dict[str, Any]) -> None:
        """Look at one record: `kind` is step, epoch, test or note."""
        if record["kind"] == "epoch" and record.get("val_top1", 0.0) > self.best:
            self.best = record["val_top1"]
            print(f"best so far: {self.best:.2%} after epoch {record['epoch']}")
