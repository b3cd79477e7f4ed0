"""Progress of a study: a table of the running trials in a terminal, one line a finished trial everywhere."""

from collections.abc import Mapping
import time
from typing import Any

from rich.table import Table

from raytricks.report.progress import Reporter, duration
from raytricks.tuning.analysis import value_text

Record = dict[str, Any]
_SHOWN = 12  # running and newest trials in the table


class StudyProgress:
    """Follows the trials by what `run_trials` tells its listener.

    Args:
        epochs: of a trial that trains to its end.
        num_trials: in all.
        name: what a trial is called, such as "trial" or "retrain".
    """

    def __init__(self, reporter: Reporter, epochs: int, num_trials: int, name: str = "trial") -> None:
        self._reporter, self._epochs, self._num_trials, self._name = reporter, epochs, num_trials, name
        self._started_s = time.monotonic()
        self._rows: dict[int, dict[str, Any]] = {}
        self._best: tuple[float, int] | None = None

    def start(self) -> None:
        """Show the table, where there is a terminal."""
        self._reporter.show_live(self._table)

    def event(self, number: int, record: Record | None, event: str, values: Mapping[str, Any] | None = None) -> None:
        """Take in what happened to a trial.

        Args:
            record: of an epoch, for "epoch".
            event: started, epoch, finished, stopped, failed: REASON.
        """
        row = self._rows.setdefault(number, {"epoch": 0, "top1": None, "status": "running"})
        if values is not None:
            row["values"] = dict(values)
        if event == "epoch" and record is not None:
            row["epoch"] = record["epoch"]
            row["top1"] = record.get("val_top1", row["top1"])
            return
        kind = event.partition(":")[0]
        row["status"] = kind if kind in ("finished", "stopped", "failed", "unfinished") else "running"
        if row["status"] != "running":
            self._say(number, row, event)

    def _say(self, number: int, row: dict[str, Any], event: str) -> None:
        top1 = row["top1"]
        is_best = row["status"] == "finished" and top1 is not None and (self._best is None or top1 > self._best[0])
        if is_best:
            self._best = (top1, number)
        score = "" if top1 is None else f"{top1:7.2%} "
        setting = " ".join(
            f"{key.rpartition('.')[2]}={value_text(value)}" for key, value in row.get("values", {}).items()
        )
        best = "  best so far" if is_best else ""
        passed = duration(time.monotonic() - self._started_s)
        self._reporter.as_json(
            {self._name: number, "epochs": row["epoch"], "top1": top1, "event": event, **row.get("values", {})}
        )
        progress = f"{self._name} {number:<3} {score}epoch {row['epoch']}/{self._epochs}"
        self._reporter.line(f"{progress}  {event}  {setting}{best}  ({passed})")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in (self._name, "epoch", "top-1", "status", "values"):
            table.add_column(heading)
        running = [n for n, row in self._rows.items() if row["status"] == "running"]
        ended = [n for n, row in self._rows.items() if row["status"] != "running"]
        for number in sorted([*ended[-(_SHOWN - len(running)) :], *running] if len(running) < _SHOWN else running):
            row = self._rows[number]
            top1 = "" if row["top1"] is None else f"{row['top1']:.2%}"
            values = " ".join(f"{k.rpartition('.')[2]}={value_text(v)}" for k, v in row.get("values", {}).items())
            table.add_row(str(number), f"{row['epoch']}/{self._epochs}", top1, row["status"], values)
        best = "" if self._best is None else f"; best: {self._name} {self._best[1]}, {self._best[0]:.2%}"
        passed = duration(time.monotonic() - self._started_s)
        table.caption = f"{len(ended)} of {self._num_trials} ended{best}; {passed}"
        table.caption_justify = "left"
        return table
