"""Images to predict for, from wherever they lie, in a fixed order: named and read one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from glob import glob, has_magic
import hashlib
import os
from pathlib import Path
import threading
from typing import Any, Protocol

import numpy as np
from pyarrow import ArrowInvalid, parquet

from raytricks.config.credentials import redacted
from raytricks.data.image_formats import IMAGE_SUFFIXES, UnreadableImage, read_file
from raytricks.data.storage import Storage, expand_user, remote_files, storage_at
from raytricks.errors import DataError

_LISTS = (".txt", ".lst")
_IMAGE_COLUMNS = ("image", "img", "image_bytes", "bytes")
_ROW_GROUPS_KEPT = 4


class ImageList(Protocol):
    """Encoded images in order; threads and processes may share one."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what the image's row is called."""
        ...

    def read(self, index: int) -> bytes | memoryview:
        """Return the encoded image; raises DataError naming it."""
        ...

    def fingerprint(self) -> str:
        """Return a sha256 of which images these are."""
        ...


def find_images(place: str | os.PathLike) -> ImageList:
    """List the images of a file, a folder, a glob, a list of paths (.txt), Parquet, or an s3:// or gs:// URL.

    Raises:
        DataError: nothing there, or nothing that is an image by its name.
    """
    text = os.fspath(place)
    if "://" in text:
        return _remote(text)
    text = expand_user(text)
    path = Path(text)
    if path.is_dir():
        tables = sorted(path.glob("*.parquet"))
        return ParquetImages(tuple(map(str, tables))) if tables else FileList(tuple(files_in(path)))
    if path.is_file():
        if path.suffix in _LISTS:
            return FileList(_listed(path))
        return ParquetImages((text,)) if path.suffix == ".parquet" else FileList((text,))
    found = sorted(glob(text, recursive=True)) if has_magic(text) else []  # noqa: PTH207 (a pattern of its own root)
    files = [name for name in found if Path(name).is_file()]
    if not files:
        raise DataError(f"{place}: no such file, folder or pattern of files")
    if all(name.endswith(".parquet") for name in files):
        return ParquetImages(tuple(files))
    return FileList(tuple(files))


def files_in(folder: str | os.PathLike) -> list[str]:
    """Return the image files below a folder, by their suffix, sorted; hidden ones are left out.

    Raises:
        DataError: there is none.
    """
    root = Path(folder).expanduser()
    found = []
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [os.path.join(directory, name) for name in sorted(files) if _is_image(name)]  # noqa: PTH118 (speed)
    if not found:
        raise DataError(f"{root}: no image files there; they end with {', '.join(IMAGE_SUFFIXES)}")
    return found


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def _listed(path: Path) -> tuple[str, ...]:
    """Return the paths in a list, a line each; relative ones start from the list's own folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no list of paths in UTF-8; write a path a line") from None
    paths = [line.strip() for line in lines if line.strip()]
    if not paths:
        raise DataError(f"{path}: holds no path; write one a line")
    return tuple(str(path.parent / Path(name).expanduser()) for name in paths)


def _remote(url: str) -> "RemoteList":
    root, names = remote_files(url)
    chosen = [name for name in names if _is_image(name.rpartition("/")[2])]
    if not chosen:
        raise DataError(f"{url}: no image files there; they end with {', '.join(IMAGE_SUFFIXES)}")
    return RemoteList(root, tuple(chosen))


@dataclass(frozen=True)
class FileList:
    """Image files."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> bytes:
        return read_file(Path(self.paths[index]))

    def fingerprint(self) -> str:
        return _digest(self.paths)


@dataclass(frozen=True)
class RemoteList:
    """Images below a URL."""

    root: str
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return redacted(f"{self.root.partition('?')[0].rstrip('/')}/{self.files[index]}")

    def read(self, index: int) -> bytes | memoryview:
        return _storage(self.root).read(self.files[index])

    def fingerprint(self) -> str:
        return _digest((self.root, *self.files))


@dataclass(frozen=True)
class ParquetImages:
    """Encoded images in a column of Parquet files, of which a few row groups are in memory at a time."""

    files: tuple[str, ...]
    _starts: np.ndarray = field(init=False, repr=False)
    _groups: tuple[tuple[str, int], ...] = field(init=False, repr=False)
    _column: str = field(init=False)

    def __post_init__(self) -> None:
        groups, counts = [], []
        column = None
        for file in self.files:
            try:
                opened = parquet.ParquetFile(file)
            except (OSError, ArrowInvalid) as error:
                raise DataError(f"{file}: no Parquet file that can be read ({error})") from None
            names = opened.schema_arrow.names
            column = next((name for name in _IMAGE_COLUMNS if name in names), None)
            if column is None:
                wanted = ", ".join(_IMAGE_COLUMNS)
                raise DataError(f"{file}: has the columns {', '.join(names)}; one of {wanted} is needed")
            for group in range(opened.num_row_groups):
                groups.append((file, group))
                counts.append(opened.metadata.row_group(group).num_rows)
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))
        object.__setattr__(self, "_groups", tuple(groups))
        object.__setattr__(self, "_column", column)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        group = self._group(index)
        file = self._groups[group][0]
        first = next(number for number, (name, _) in enumerate(self._groups) if name == file)
        return f"{file}: row {index - int(self._starts[first])}"

    def read(self, index: int) -> bytes:
        group = self._group(index)
        cell = _row_groups(*self._groups[group], self._column)[index - int(self._starts[group])].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise UnreadableImage(f"{self.name(index)}: holds no image; leave it out")
        return content

    def fingerprint(self) -> str:
        return _digest((*self.files, str(self._starts.tolist())))

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1


_kept: dict[tuple[str, int, str], Any] = {}
_lock = threading.Lock()


def _row_groups(file: str, group: int, column: str) -> Any:
    """Return a row group's column; the last few stay in memory."""
    with _lock:
        key = (file, group, column)
        if key not in _kept:
            while len(_kept) >= _ROW_GROUPS_KEPT:
                del _kept[next(iter(_kept))]
            _kept[key] = parquet.ParquetFile(file).read_row_group(group, columns=[column]).column(0)
        return _kept[key]


@cache
def _storage(root: str) -> Storage:
    return storage_at(root)


def _digest(names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(f"{name}\n"))
    return digest.hexdigest()
