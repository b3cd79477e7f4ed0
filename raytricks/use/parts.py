"""A prediction's file made of parts, so that a kill loses none and doubles none.

OUT.parts/manifest.json     what it is of: model, images, settings; another one's parts are refused
OUT.parts/000012.parquet    rows of part 12, renamed into place when whole
OUT                         all of them in order, when all are there; the parts are then removed
"""

from collections.abc import Callable, Iterator, Mapping
import io
import json
from pathlib import Path
import shutil
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from raytricks.errors import ConfigError, RaytricksError
from raytricks.files import write_atomically
from raytricks.inference.rows import UNSURE

PART_ROWS = 1024
FORMATS = (".parquet", ".csv", ".jsonl")
_MANIFEST = "manifest.json"


class Parts:
    """The parts of one output file.

    Args:
        told: what the rows depend on.
        num_rows: of the whole file.

    Raises:
        ConfigError: an unknown format, a file that is there already, or parts of another prediction.
    """

    def __init__(self, out: Path, told: Mapping[str, Any], num_rows: int, *, overwrite: bool) -> None:
        self.out, self.num_rows, self._part_rows = out, num_rows, PART_ROWS
        self.folder = out.with_name(f"{out.name}.parts")
        if out.suffix not in FORMATS:
            raise ConfigError(f"-o {out}: must end with {', '.join(FORMATS)}")
        if not out.parent.is_dir():
            raise ConfigError(f"-o {out}: {out.parent} is no directory; make it, or name another")
        if out.exists() and not overwrite:
            raise ConfigError(f"-o {out}: is there already; name another file, or add --overwrite")
        told = {**told, "num_rows": num_rows, "part_rows": PART_ROWS}
        manifest = self.folder / _MANIFEST
        if manifest.is_file():
            self._require_same(json.loads(manifest.read_text()), json.loads(json.dumps(told)))
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            write_atomically(manifest, json.dumps(told, indent=1).encode())

    def _require_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        differing = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        if differing:
            raise ConfigError(
                f"{self.folder}: is the begun prediction of another {' and '.join(differing)}; remove it, or name "
                "another file"
            )

    @property
    def missing(self) -> list[int]:
        """The numbers of the parts that are not there yet."""
        return [part for part in range(-(-self.num_rows // self._part_rows)) if not self._file(part).is_file()]

    def rows_of(self, part: int) -> range:
        """Return the images of a part."""
        return range(part * self._part_rows, min((part + 1) * self._part_rows, self.num_rows))

    def write(self, part: int, content: bytes) -> None:
        """Keep a part, whole."""
        write_atomically(self._file(part), content)

    def counts(self) -> tuple[int, int]:
        """Return how many rows hold an error, and how many an unsure answer."""
        errors = unsure = 0
        for part in range(-(-self.num_rows // self._part_rows)):
            table = parquet.read_table(self._file(part), columns=["label", "error"])
            errors += len(table) - table.column("error").null_count
            unsure += sum(label == UNSURE for label in table.column("label").to_pylist())
        return errors, unsure

    def finish(self) -> None:
        """Join the parts into the output file, a part in memory at a time, and remove them."""
        temporary = self.out.with_name(f".tmp-{self.out.name}")
        tables = (parquet.read_table(self._file(part)) for part in range(-(-self.num_rows // self._part_rows)))
        try:
            _WRITERS[self.out.suffix](temporary, tables)
            temporary.replace(self.out)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RaytricksError(f"{self.out}: cannot be written ({error.strerror}); run the command again") from error
        shutil.rmtree(self.folder)

    def _file(self, part: int) -> Path:
        return self.folder / f"{part:06d}.parquet"


def encoded(table: pa.Table) -> bytes:
    """Return a table as the content of a Parquet file."""
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def _write_parquet(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _write_csv(path: Path, tables: Iterator[pa.Table]) -> None:
    first = _flat(next(tables))
    with csv.CSVWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(_flat(table).cast(first.schema))


def _flat(table: pa.Table) -> pa.Table:
    """Give each of the top classes, and each number of an embedding, a column of its own."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for name in table.column_names:
        column = table.column(name)
        if not pa.types.is_list(column.type):
            columns[name] = column
            continue
        rows = column.to_pylist()
        width = max((len(row) for row in rows if row), default=0)
        stem = {"top_labels": "label", "top_scores": "score"}.get(name, name)
        for place in range(width):
            cells = [None if row is None else row[place] for row in rows]
            columns[f"{stem}_{place + 1}"] = pa.array(cells, column.type.value_type)
    return pa.table(columns)


def _write_jsonl(path: Path, tables: Iterator[pa.Table]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for table in tables:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())


_WRITERS: dict[str, Callable[[Path, Iterator[pa.Table]], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
