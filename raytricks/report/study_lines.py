"""A study in lines: its header, its progress, its tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import io
import json
from pathlib import Path
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv
import pyarrow.parquet as pq
from rich.table import Table

from raytricks.config.schema import ExperimentConfig
from raytricks.config.search_space import Choice, Distribution, Grid, QUniform
from raytricks.data.splits import DatasetSplits
from raytricks.files import write_atomically
from raytricks.report.progress import Reporter, duration
from raytricks.tuning.analysis import value_text
from raytricks.tuning.certificate import certificate_lines
from raytricks.tuning.outcome import StudyResult
from raytricks.tuning.space import default_values, space_warnings

if TYPE_CHECKING:
    import pandas as pd


def study_header_lines(
    config: ExperimentConfig,
    selection: DatasetSplits,
    test_images: int,
    *,
    num_trials: int,
    rungs: Sequence[int],
    study_dir: Path | None,
) -> list[str]:
    """Return the header, one "label  text" line a subject.

    Args:
        selection: the data of the trials.
        test_images: on which default and winner are scored at the end.
        rungs: epochs at which trials may be stopped.
    """
    tune, recipe = config.tune, config.recipe
    judged = f", judged after epoch {', '.join(map(str, rungs))}" if rungs else ""
    rows = [
        ("study", f"{study_dir or 'a plan, nothing is written'}, seed {config.seed}"),
        ("data", f"{selection.name}: {len(selection.train):,} images train each trial"),
        ("ranked", f"on {len(selection.evaluation):,} images ({selection.evaluation.origin}), by top-1"),
        ("test", f"{test_images:,} images, not looked at before default and winner are retrained"),
        ("trials", f"{num_trials} of {recipe.epochs} epochs each; {tune.sampler}, {tune.scheduler}{judged}"),
    ]
    default = default_values(config)
    rows += [
        ("search", f"{key}: {_range_text(d)} (default {value_text(default[key])})") for key, d in tune.space.items()
    ]
    rows += [("warning", line) for line in space_warnings(config)]
    return [f"{label:9} {text}" for label, text in rows]


def outcome_lines(result: StudyResult, elapsed_s: float) -> list[str]:
    """Return the lines after the last trial: counts, winner, certificate, files, what to do next."""
    statuses = [trial.status for trial in result.trials]
    counts = ", ".join(f"{statuses.count(kind)} {kind}" for kind in dict.fromkeys(statuses))
    lines = [f"trials    {len(result.trials)}: {counts}"]
    best = next((trial for trial in result.trials if trial.number == result.best), None)
    if best is not None:
        values = ", ".join(f"{key} {value_text(value)}" for key, value in best.values.items())
        name = "trial 0, the default" if best.number == 0 else f"trial {best.number}"
        lines.append(f"best      {name}: {best.score:.2%} of the images it was chosen on; {values}")
    lines += [
        f"rung      after epoch {epoch} the order agreed with the final one by {correlation:+.2f} (Spearman)"
        for epoch, correlation in result.rung_correlation.items()
    ]
    if result.certificate is not None:
        lines += certificate_lines(result.certificate)
    lines += [
        f"time      {duration(elapsed_s)}",
        f"files     {result.study_dir}: report.html, trials.csv, results.parquet, trials/",
    ]
    if best is not None:
        lines += ["next", f"  train   raytricks train {result.study_dir}/best.yaml"]
    return lines


def _range_text(distribution: Distribution) -> str:
    if isinstance(distribution, Choice | Grid):
        return ", ".join(value_text(value) for value in distribution.values)
    step = f" in steps of {value_text(distribution.q)}" if isinstance(distribution, QUniform) else ""
    scale = " (log)" if distribution.kind == "loguniform" else ""
    also = "".join(f", or {value_text(value)}" for value in distribution.also)
    return f"{value_text(distribution.low)} to {value_text(distribution.high)}{step}{scale}{also}"


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


_FIXED = {
    "number": pa.int64(),
    "status": pa.string(),
    "reason": pa.string(),
    "score": pa.float64(),
    "epochs": pa.int64(),
    "train_s": pa.float64(),
    "run_dir": pa.string(),
}


def write_trials_csv(result: StudyResult, path: Path) -> None:
    """Write one row a trial, in place of what was there: what became of it, then its value of each searched key.

    Nothing between two commas is None; true and false are booleans; lists are JSON.
    """
    buffer = io.BytesIO()
    csv.write_csv(_table(result).drop_columns(["top1"]), buffer)
    write_atomically(path, buffer.getvalue())


def write_results_parquet(result: StudyResult, path: Path) -> None:
    """Write the CSV's table with types, and `top1`, a list of the top-1 after each epoch."""
    buffer = io.BytesIO()
    pq.write_table(_table(result), buffer)
    write_atomically(path, buffer.getvalue())


def trials_table(result: StudyResult) -> "pd.DataFrame":
    """Return the table of `results.parquet`, one row a trial."""
    return _table(result).to_pandas()


def _table(result: StudyResult) -> pa.Table:
    columns = {name: pa.array([getattr(trial, name) for trial in result.trials], kind) for name, kind in _FIXED.items()}
    for key in result.keys:
        columns[key] = _column([trial.values.get(key) for trial in result.trials])
    columns["top1"] = pa.array([list(trial.top1) for trial in result.trials], pa.list_(pa.float64()))
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array:
    """Return a key's values in the narrowest type that holds them all; texts where they are of several kinds."""
    kinds = {type(value) for value in values if value is not None}
    for kind, allowed in ((pa.bool_(), {bool}), (pa.int64(), {int}), (pa.float64(), {int, float})):
        if kinds and kinds <= allowed:
            return pa.array(values, kind)
    texts = [value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values]
    return pa.array(texts, pa.string())
