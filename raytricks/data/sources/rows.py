"""The columns of a table's file as text, whatever program has written it."""

import codecs
import csv
from dataclasses import dataclass
import io
import math
from pathlib import Path
from typing import Any

from raytricks.errors import DataError

_SEPARATORS = ",;\t|"
_LARGEST_CELL = 2**20
_MISSING = ("", "nan", "<na>")


@dataclass(frozen=True)
class Columns:
    """A table, column by column.

    Attributes:
        names: of the columns as they are written, without blanks around them; one may be there twice.
        cells: column's place -> its values as text, "" where there is none.
    """

    path: Path
    names: tuple[str, ...]
    cells: tuple[list[str], ...]
    notes: tuple[str, ...] = ()

    def values(self, name: str) -> list[str]:
        """Return the first column of that name."""
        return self.cells[self.names.index(name)]

    def filled(self, name: str) -> list[str]:
        """Return a column that must have a value in every row; raises DataError naming the first that has none."""
        values = self.values(name)
        for row, value in enumerate(values):
            if value.strip().casefold() in _MISSING:
                raise DataError(f"{self.path}: row {row + 1} has no {name}; fill it in or remove the row")
        return values


def read_columns(path: Path) -> Columns:
    """Read a CSV file of any usual separator and encoding, or a Parquet file.

    Raises:
        DataError: it is not there, cannot be read, or has rows of other lengths than its first line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    columns = _of_parquet(path) if path.suffix.lower() == ".parquet" else _of_text(path)
    if not columns.names or not columns.cells[0]:
        raise DataError(
            f"{path}: cannot be read (it holds no rows below the names of its columns); save the table again"
        )
    return columns


def _of_parquet(path: Path) -> Columns:
    from pyarrow import ArrowException, parquet  # slow to import, and few sources are tables

    try:
        table = parquet.ParquetFile(path).read()
    except (ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    names = tuple(str(name).strip() for name in table.column_names)
    return Columns(path, names, tuple([_text(value) for value in column.to_pylist()] for column in table.columns))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


def _of_text(path: Path) -> Columns:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    text, notes = _decoded(path, content)
    if text[:4].lower() == "sep=":  # Excel's own line
        separator, text = text[4:5], text.partition("\n")[2]
    else:
        head = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(_SEPARATORS, key=head.count)
    csv.field_size_limit(_LARGEST_CELL)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator or ",", strict=True)
    try:
        names = tuple(name.strip() for name in next(filled for filled in rows if any(map(str.strip, filled))))
        cells: tuple[list[str], ...] = tuple([] for _ in names)
        for number, row in enumerate((row for row in rows if any(map(str.strip, row))), start=1):
            if len(row) > len(names) and any(map(str.strip, row[len(names) :])):
                raise DataError(
                    f"{path}: cannot be read (row {number} has {len(row)} cells, the first line {len(names)}); quote "
                    "cells that hold the separator"
                )
            for place, column in enumerate(cells):
                column.append(row[place] if place < len(row) else "")
    except (csv.Error, StopIteration) as error:
        raise _unreadable(path, error) from None
    return Columns(path, names, cells, notes)


def _decoded(path: Path, content: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the text, and what is to be said of how it was read."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "cp1252":
            return text, (f"{path}: is not UTF-8, read as Windows-1252; save it as UTF-8 if names look wrong",)
        return text, ()
    raise DataError(f"{path}: cannot be read (it is no text); save the table again")


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or "it is empty"
    return DataError(f"{path}: cannot be read ({reason}); save the table again")
