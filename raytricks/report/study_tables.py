"""A study's trials as tables: a CSV for spreadsheets, Parquet for analysis, a DataFrame for notebooks."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv
import pyarrow.parquet as pq

from raytricks.files import write_atomically
from raytricks.tuning.outcome import StudyResult

if TYPE_CHECKING:
    import pandas as pd

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
