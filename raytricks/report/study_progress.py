"""Progress of a study: a table of its trials in a terminal, one line a trial that has ended everywhere."""

from collections.abc import Callable
from dataclasses import dataclass, field
import time
from typing import Any

from rich.table import Table

from raytricks.report.progress import Reporter, duration
from raytricks.tuning.analysis import value_text

Record = dict[str, Any]
Facts = tuple[dict[str, Any], str | None, Record | None]
_SHOWN = 12  # running and newest trials in the table


@dataclass
class _Row:
    epoch: int = 0
    top1: float | None = None
    status: str = "running"
    values: dict[str, Any] = field(default_factory=dict)


class StudyProgress:
    """Follows the trials by what `run_trials` tells its listener.

    Args:
        epochs: of a trial that trains to its end.
        num_trials: in all.
        stats_of: trial number -> its values; why it failed or was stopped; the record of its last epoch.
        name: what a trial is called.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        epochs: int,
        num_trials: int,
        stats_of: Callable[[int], Facts],
        name: str = "trial",
    ) -> None:
        self._reporter, self._epochs, self._num_trials, self._name = reporter, epochs, num_trials, name
        self._facts_of = stats_of
        self._started_s = time.monotonic()
        self._rows: dict[int, _Row] = {}
        self._best: tuple[float, int] | None = None

    def start(self) -> None:
        """Show the table, where there is a terminal."""
        self._reporter.show_live(self._table)

    def listen(self, number: int, record: Record | None, status: str) -> None:
        """Take in what happened to a trial; see `run_trials`."""
        row = self._rows.setdefault(number, _Row())
        if record is not None:
            row.epoch, row.top1 = record["epoch"], record.get("val_top1", row.top1)
            return
        row.status = status
        row.values, reason, last = self._facts_of(number)
        if last is not None and status != "running":  # what is replayed may end before
            row.epoch, row.top1 = last["epoch"], last.get("val_top1", row.top1)
        if status != "running":
            self._say(number, row, reason)

    def _say(self, number: int, row: _Row, reason: str | None) -> None:
        content = {"epochs": row.epoch, "top1": row.top1, "status": row.status, "reason": reason}
        self._reporter.as_json({self._name: number, **content, **row.values})
        if row.status == "finished" and row.top1 is not None and (self._best is None or row.top1 > self._best[0]):
            self._best = (row.top1, number)
        score = "      -" if row.top1 is None else f"{row.top1:7.2%}"
        best = "  best so far" if self._best is not None and self._best[1] == number else ""
        ended = reason if row.status == "stopped" and reason else f"{row.status}: {reason}" if reason else row.status
        passed = duration(time.monotonic() - self._started_s)
        self._reporter.line(
            f"{self._name} {number:>3} {score}  {row.epoch}/{self._epochs}  {ended}  {_setting(row)}{best}  ({passed})"
        )

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in (self._name, "epoch", "top-1", "status", "values"):
            table.add_column(heading)
        running = [number for number, row in self._rows.items() if row.status == "running"]
        ended = [number for number, row in self._rows.items() if row.status != "running"]
        room = max(0, _SHOWN - len(running))
        for number in sorted([*ended[len(ended) - min(room, len(ended)) :], *running]):
            row = self._rows[number]
            top1 = "" if row.top1 is None else f"{row.top1:.2%}"
            table.add_row(str(number), f"{row.epoch}/{self._epochs}", top1, row.status, _setting(row))
        best = "" if self._best is None else f"; best: {self._name} {self._best[1]}, {self._best[0]:.2%}"
        passed = duration(time.monotonic() - self._started_s)
        table.caption = f"{len(ended)} of {self._num_trials} ended{best}; {passed}"
        table.caption_justify = "left"
        return table


def _setting(row: _Row) -> str:
    return " ".join(f"{key.rpartition('.')[2]}={value_text(value)}" for key, value in row.values.items())
