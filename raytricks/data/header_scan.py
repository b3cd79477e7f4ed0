"""The headers of many image files: read a chunk at a time, in threads, and kept for the next start.

What is kept holds for a file as long as its size, its time of change and its inode are the same; looking at these costs
a tenth of opening the file and asking Pillow.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
import hashlib
import io
import os
from pathlib import Path
import time
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np

from raytricks.data.image_formats import UnreadableImage, naming, read_header
from raytricks.data.splits import FileImages
from raytricks.data.threads import map_in_order
from raytricks.errors import DataError
from raytricks.files import user_cache

KEPT_FROM = 1000
"""Files; fewer are read again faster than a person notices."""
_CHUNK = 256
_THREADS = 8  # local files are bound by the GIL and gain nothing; on network storage they wait together
_UNSETTLED_NS = 2_000_000_000  # a file changed so shortly before may change again within the same tick of its clock
_STATUS = np.dtype([("size", np.int64), ("changed", np.int64), ("inode", np.uint64)])
_HEADER = np.dtype([("height", np.int32), ("width", np.int32), ("gray", np.bool_), ("deep", np.bool_)])
_T = TypeVar("_T")


def read_headers(paths: Sequence[str], folder: Path | None = None) -> FileImages:
    """Read the sizes of image files.

    Args:
        folder: of what is kept; None: the user's cache.

    Raises:
        DataError: a file is no image; names the first.
    """
    if len(paths) < KEPT_FROM:
        return _images(paths, _read(paths))
    started_ns = time.time_ns()
    file = _file_of(paths, folder or user_cache("headers"))
    statuses = np.fromiter(_in_chunks(_status, paths), _STATUS, len(paths))
    known = _Kept.of(file, paths)
    headers = np.zeros(len(paths), _HEADER)
    stale = np.ones(len(paths), bool)
    if known is not None:
        headers, stale = known.headers, known.statuses != statuses
    if stale.any():
        headers[stale] = _read([paths[index] for index in np.flatnonzero(stale).tolist()])
        statuses["inode"][statuses["changed"] > started_ns - _UNSETTLED_NS] = 0  # is never found to be the same
        _Kept(_joined(paths), statuses, headers).write(file)
    return _images(paths, headers)


@dataclass(frozen=True)
class _Kept:
    """What was read before: the paths in order, how their files were then, and their headers."""

    names: bytes
    statuses: np.ndarray
    headers: np.ndarray

    @classmethod
    def of(cls, file: Path, paths: Sequence[str]) -> "_Kept | None":
        """Return what is known of these files, in their order; None when nothing is."""
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as content:
                names, statuses, headers = content["names"].tobytes(), content["statuses"], content["headers"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # not there, or not whole: it is only a copy
            return None
        if statuses.dtype != _STATUS or headers.dtype != _HEADER or len(statuses) != len(headers):
            return None
        if names == _joined(paths):
            return cls(names, statuses, headers) if len(statuses) == len(paths) else None
        places = {name: place for place, name in enumerate(names.split(b"\0"))}
        if len(places) != len(statuses):
            return None
        found = np.fromiter((places.get(os.fsencode(path), -1) for path in paths), np.int64, len(paths))
        statuses, headers = statuses[found], headers[found]
        statuses["inode"][found < 0] = 0
        return cls(b"", statuses, headers)

    def write(self, file: Path) -> None:
        """Keep it, where the disk takes it: a start without it is only slower."""
        content = io.BytesIO()
        names = np.frombuffer(self.names, np.uint8)
        np.savez(content, names=names, statuses=self.statuses, headers=self.headers)
        temporary = file.with_name(f".tmp-{os.getpid()}-{file.name}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content.getbuffer())
            temporary.replace(file)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _file_of(paths: Sequence[str], folder: Path) -> Path:
    """Return the file for what lies in the directory that two of the paths share: one a data set and split."""
    place = os.path.commonpath([Path(paths[0]).absolute(), Path(paths[-1]).absolute()])
    return folder / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.npz"


def _joined(paths: Sequence[str]) -> bytes:
    return b"\0".join(map(os.fsencode, paths))


def _status(path: str) -> tuple[int, int, int]:
    with naming(path):
        found = os.stat(path)  # noqa: PTH116 (making a Path costs as much as asking)
    return found.st_size, found.st_mtime_ns, found.st_ino


def _read(paths: Sequence[str]) -> np.ndarray:
    errors: list[UnreadableImage] = []

    def attempt(path: str) -> tuple[int, int, bool, bool]:
        try:
            header = read_header(Path(path))
        except UnreadableImage as error:
            errors.append(error)
            return 0, 0, False, False
        return header.height, header.width, header.is_grayscale, header.is_deep

    headers = np.fromiter(_in_chunks(attempt, paths), _HEADER, len(paths))
    if errors:
        more = f" (and {len(errors) - 1} more unreadable of {len(paths)})" if len(errors) > 1 else ""
        raise DataError(min(map(str, errors)) + more)
    return headers


def _in_chunks(function: Callable[[str], _T], paths: Sequence[str]) -> Iterator[_T]:
    """Map in threads, in order, with no more than a few chunks queued."""
    if len(paths) <= _CHUNK:
        yield from map(function, paths)
        return

    def chunk(start: int) -> list[_T]:
        return [function(path) for path in paths[start : start + _CHUNK]]

    starts = range(0, len(paths), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool:
        for results in map_in_order(pool, chunk, starts, 2 * _THREADS):
            yield from results


def _images(paths: Sequence[str], headers: np.ndarray) -> FileImages:
    heights, widths = headers["height"].astype(np.int64), headers["width"].astype(np.int64)
    return FileImages(tuple(paths), heights, widths, bool(headers["gray"].all()), bool(headers["deep"].any()))
