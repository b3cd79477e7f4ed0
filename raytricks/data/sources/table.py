"""A CSV or Parquet file with a row an image: columns path, label and, if there is one, split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raytricks.data.sources.folder import ListedFiles
from raytricks.errors import DataError

SUFFIXES = (".csv", ".parquet")
_SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True)
class TableListing:
    """The files of each split ("train", "val", "test") and what the table calls each."""

    class_names: tuple[str, ...]
    splits: dict[str, ListedFiles]
    names: dict[str, tuple[str, ...]]


def list_table(path: Path) -> TableListing:
    """Read a table; its paths are relative to the directory it is in. No image is opened.

    Classes are numbered in the order of their names, as numbers when all are whole numbers.

    Raises:
        DataError: unreadable, a column missing, an empty cell, an unknown split, no training
            images, fewer than two classes, or a class that only another split has.
    """
    columns = _columns(path)
    names, labels = columns["path"], columns["label"]
    splits = [_split_name(path, row, value) for row, value in enumerate(columns.get("split", ["train"] * len(names)))]
    is_train = np.array([split == "train" for split in splits], bool)
    if not is_train.any():
        raise DataError(f"{path}: has no row of the split train; training needs some")
    class_names = _class_names(path, labels, is_train)
    number_of = {name: number for number, name in enumerate(class_names)}
    listed, listed_names = {}, {}
    for split in ("train", "val", "test"):
        rows = [row for row, of_row in enumerate(splits) if of_row == split]
        if rows:
            paths = tuple(str(path.parent / names[row]) for row in rows)
            listed[split] = ListedFiles(paths, np.array([number_of[labels[row]] for row in rows]), split)
            listed_names[split] = tuple(names[row] for row in rows)
    return TableListing(class_names, listed, listed_names)


def _columns(path: Path) -> dict[str, list[str]]:
    from pyarrow import ArrowException, csv, parquet, string  # slow to import, and few sources are tables

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if path.suffix.lower() == ".csv":
            texts = csv.ConvertOptions(
                column_types=dict.fromkeys(("path", "label", "split"), string()), strings_can_be_null=False
            )
            table = csv.read_csv(path, convert_options=texts)
        else:
            table = parquet.ParquetFile(path).read()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); save the table again") from None
    missing = [name for name in ("path", "label") if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path}: has no column {' and no column '.join(missing)}, only {', '.join(table.column_names)}; wanted: "
            "path,label or path,label,split"
        )
    columns = {}
    for name in ("path", "label", "split"):
        if name in table.column_names:
            values = table[name].to_pylist()
            for row, value in enumerate(values):
                if value is None or str(value).strip() == "":
                    raise DataError(f"{path}: row {row + 1} has no {name}; fill it in or remove the row")
            columns[name] = [str(value) for value in values]
    return columns


def _split_name(path: Path, row: int, value: str) -> str:
    if value not in _SPLITS:
        raise DataError(f"{path}: row {row + 1} has the split {value!r}; wanted: train, val or test")
    return _SPLITS[value]


def _class_names(path: Path, labels: list[str], is_train: np.ndarray) -> tuple[str, ...]:
    known = {label for label, train in zip(labels, is_train, strict=True) if train}
    foreign = sorted(set(labels) - known)
    if foreign:
        raise DataError(f"{path}: class {foreign[0]!r} is not among the training images; add some or remove its rows")
    if len(known) < 2:
        raise DataError(f"{path}: only one class, {known.pop()!r}; at least 2 are needed")
    are_numbers = all(label.isascii() and label.isdecimal() for label in known)
    return tuple(sorted(known, key=lambda label: (int(label), label)) if are_numbers else sorted(known))
