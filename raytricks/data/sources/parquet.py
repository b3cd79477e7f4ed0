"""Parquet files of encoded images, as Hugging Face's datasets are published: a column of images, one of labels."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from raytricks.config.schema import DataConfig
from raytricks.data.class_names import clean_name, in_class_order, natural_key
from raytricks.data.image_formats import header_of
from raytricks.data.sources.layout import split_called
from raytricks.data.splits import DatasetImages, FoundSplits, Split
from raytricks.errors import DataError
from raytricks.parts.hooks import Hooks

_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img", "image_bytes"), ("label", "labels", "fine_label", "class")


def open_splits(config: DataConfig) -> FoundSplits:
    """Read a file, or a directory whose files begin with train, validation or test; images stay encoded, in memory.

    An image is bytes, or a struct with `bytes`. A label is a whole number, or text; numbers get the names that the
    file's Hugging Face features give them.

    Raises:
        DataError: a column is missing, a cell is empty, an image is none, or a split has other classes than train.
    """
    path = Path(config.path or "").expanduser()
    tables = {split: parquet.ParquetDataset(files).read() for split, files in _files(path).items()}
    columns = {split: _columns(table, path) for split, table in tables.items()}
    names = _class_names(tables["train"], columns["train"][1], path)
    found = {
        split: Split(
            _numbers(labels, names, f"{path}: {split}"),
            _images(table.column(image), f"{path}: {split}"),
            split,
            _groups(table, config.group),
        )
        for (split, table), (image, labels) in zip(tables.items(), columns.values(), strict=True)
    }
    return FoundSplits(path.resolve().stem, names, found["train"], found.get("val"), found.get("test"))


def holds(path: str) -> bool:
    """Whether a path is a Parquet file with a column of images, or a directory of such files."""
    if "://" in path:
        return False
    place = Path(path).expanduser()
    files = [place] if place.suffix == ".parquet" and place.is_file() else sorted(place.glob("*.parquet"))
    first = files[0] if files else None
    return first is not None and any(name in _IMAGE_COLUMNS for name in parquet.read_schema(first).names)


def _files(path: Path) -> dict[str, list[str]]:
    """Return the files of each split; one that names no split is of the training images."""
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"), key=lambda file: natural_key(file.name))
    splits: dict[str, list[str]] = {}
    for file in files:
        word = file.stem.partition("-")[0].partition("_")[0].lower()
        splits.setdefault(split_called(word) or "train", []).append(str(file))
    if "train" not in splits:
        raise DataError(f"{path}: holds no Parquet file of training images; name one train-*.parquet")
    return splits


def _columns(table: pa.Table, path: Path) -> tuple[str, list[Any]]:
    image, label = (
        next((name for name in wanted if name in table.column_names), None)
        for wanted in (_IMAGE_COLUMNS, _LABEL_COLUMNS)
    )
    if image is None or label is None:
        raise DataError(
            f"{path}: has the columns {', '.join(table.column_names)}; one of {', '.join(_IMAGE_COLUMNS)} and one of "
            f"{', '.join(_LABEL_COLUMNS)} are needed"
        )
    for name in (image, label):
        if table.column_names.count(name) > 1:
            raise DataError(f"{path}: has {table.column_names.count(name)} columns {name!r}; remove all but one")
    labels = table.column(label).to_pylist()
    if None in labels:
        raise DataError(f"{path}: row {labels.index(None)} has no {label}; leave it out or fill it in")
    return image, [clean_name(value) if isinstance(value, str) else value for value in labels]


def _class_names(table: pa.Table, labels: Sequence[Any], path: Path) -> tuple[str, ...]:
    if len(set(labels)) < 2:
        raise DataError(f"{path}: all training images have one label; at least 2 classes are needed")
    if isinstance(labels[0], str):
        return in_class_order(set(labels))
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    names = next((tuple(f["names"]) for f in features.values() if isinstance(f, dict) and "names" in f), ())
    return names if len(names) > max(labels) else tuple(str(number) for number in range(max(labels) + 1))


def _numbers(labels: Sequence[Any], names: tuple[str, ...], place: str) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted({str(value) for value in labels if isinstance(value, str) and value not in numbers})
    beyond = [value for value in labels if not isinstance(value, str) and not 0 <= value < len(names)]
    if unknown or beyond:
        raise DataError(f"{place} has the label {(unknown or beyond)[0]!r}, which train has not; make them equal")
    return np.array([numbers[value] if isinstance(value, str) else value for value in labels], np.int64)


def _groups(table: pa.Table, group: str | None) -> tuple[str, ...] | None:
    """Return the column that data.group names; None where there is none of that name."""
    return tuple(map(str, table.column(group).to_pylist())) if group in table.column_names else None


def _images(column: pa.ChunkedArray, place: str) -> DatasetImages:
    if pa.types.is_struct(column.type):
        column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks])
    encoded = column.to_pylist()
    headers = []
    for row, content in enumerate(encoded):
        if not isinstance(content, bytes):
            raise DataError(f"{place}: row {row} holds no image; leave it out")
        headers.append(header_of(content, f"{place}: row {row}"))
    heights, widths = (np.array([getattr(header, side) for header in headers]) for side in ("height", "width"))
    return DatasetImages(
        tuple(encoded),
        place,
        heights,
        widths,
        all(header.is_grayscale for header in headers),
        any(header.is_deep for header in headers),
    )


HOOKS = Hooks(build=open_splits, holds=holds)
