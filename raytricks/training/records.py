"""metrics.jsonl and TensorBoard events: one record a log interval, an epoch and a test.

A record is a flat dict with "kind" (step, epoch, test, note), "step" and "epoch". The file is
also how a driver follows its workers.
"""

from collections.abc import Callable
import json
import math
from pathlib import Path
from typing import Any

from raytricks.training.checkpoint import write_atomically

Record = dict[str, Any]
METRICS_FILE = "metrics.jsonl"


def read_records(path: Path) -> list[Record]:
    """Return the whole lines of a metrics file; a line cut off by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")[:-1]
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def drop_records_after(path: Path, step: int) -> None:
    """Forget what was logged after `step`, which a resumed run will do again."""
    if not path.is_file():
        return
    kept = [r for r in read_records(path) if r["step"] <= step and r["kind"] != "test"]
    content = "".join(json.dumps(r) + "\n" for r in kept).encode()
    if content != path.read_bytes():  # also when a line cut off by a kill would swallow the next one
        write_atomically(path, content)


class RecordWriter:
    """Appends records to a run's files.

    Args:
        listener: also given each record, in this process.
        purge_step: TensorBoard forgets events after it; the step a run resumes from.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        tensorboard: bool,
        purge_step: int,
        listener: Callable[[Record], None] | None = None,
    ) -> None:
        self._file = (run_dir / METRICS_FILE).open("a", buffering=1)
        self._listener = listener
        self._tensorboard = _open_tensorboard(run_dir, purge_step) if tensorboard else None

    def write(self, kind: str, *, step: int, epoch: int, **values: Any) -> None:
        """Append one record; whole lines only. NaN and infinity, which JSON has not, become null."""
        values = {name: None if _is_not_finite(value) else value for name, value in values.items()}
        record = {"kind": kind, "step": step, "epoch": epoch, **values}
        self._file.write(json.dumps(record) + "\n")
        if self._tensorboard is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._tensorboard.add_scalar(f"{kind}/{name}", value, step)
        if self._listener is not None:
            self._listener(record)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _open_tensorboard(run_dir: Path, purge_step: int):
    from tensorboardX import SummaryWriter  # protobuf's import is paid only where events are written

    return SummaryWriter(str(run_dir / "tb"), purge_step=purge_step + 1)
