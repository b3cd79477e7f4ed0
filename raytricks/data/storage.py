"""Byte ranges of files in a directory, on this machine or on a remote filesystem.

A directory's path is read through memory maps; a URL through pyarrow where it has the
filesystem built in (s3, gs, abfs, hdfs), else through fsspec.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
import mmap
from pathlib import Path
import resource
from typing import Any

import fsspec

from raytricks.errors import DataError

_ARROW_SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_OPEN_FILES = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
"""Files that a storage keeps open, as maps do too; a run has a storage for each split, and opens others beside them."""


class Storage(ABC):
    """The files below a root. Threads may share one; a pickled one opens its files again.

    Args:
        root: a directory or a URL.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def __reduce__(self):
        return type(self), (self.root,)

    def place(self, name: str) -> str:
        """Return a file's whole path, for messages too."""
        return f"{self.root}/{name}"

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return a file's bytes, None when there is none; raises DataError when it cannot be asked."""

    @abstractmethod
    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes | memoryview:
        """Return `length` bytes from `offset` on (None: all of the rest); fewer when the file is shorter."""


class LocalStorage(Storage):
    """A directory; ranges are views of memory maps, which copy nothing."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._maps: dict[str, memoryview] = {}

    def size(self, name: str) -> int | None:
        path = Path(self.root, name)
        with _naming(self.place(name)):
            return path.stat().st_size if path.is_file() else None

    def read(self, name: str, offset: int = 0, length: int | None = None) -> memoryview:
        view = self._maps.get(name)
        if view is None:
            if len(self._maps) >= _OPEN_FILES:
                self._maps.clear()  # a map goes when the last view of it does
            view = self._maps.setdefault(name, self._map(name))
        return view[offset:] if length is None else view[offset : offset + length]

    def _map(self, name: str) -> memoryview:
        with _naming(self.place(name)), Path(self.root, name).open("rb") as file:
            if file.seek(0, 2) == 0:
                return memoryview(b"")  # an empty file cannot be mapped
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class ArrowStorage(Storage):
    """A URL of a filesystem that pyarrow has built in."""

    def __init__(self, root: str) -> None:
        from pyarrow.fs import FileSystem

        super().__init__(root)
        with _naming(root):
            self._filesystem, self._directory = FileSystem.from_uri(self.root)
        self._files: dict[str, Any] = {}

    def size(self, name: str) -> int | None:
        with _naming(self.place(name)):
            found = self._filesystem.get_file_info(f"{self._directory}/{name}")
        return found.size if found.is_file else None

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with _naming(self.place(name)):
            file = self._files.get(name)
            if file is None:
                if len(self._files) >= _OPEN_FILES:
                    self._files.clear()  # closed when the last thread has read from it
                opened = self._filesystem.open_input_file(f"{self._directory}/{name}")
                file = self._files.setdefault(name, opened)
            return file.read_at(file.size() - offset if length is None else length, offset)


class FsspecStorage(Storage):
    """Any other URL."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        with _naming(root):
            self._filesystem, self._directory = fsspec.core.url_to_fs(self.root)

    def size(self, name: str) -> int | None:
        with _naming(self.place(name)):
            try:
                return self._filesystem.size(f"{self._directory}/{name}")
            except FileNotFoundError:
                return None

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with _naming(self.place(name)):
            end = None if length is None else offset + length
            return self._filesystem.cat_file(f"{self._directory}/{name}", start=offset, end=end)


def storage_at(root: str) -> Storage:
    """Return the storage of a directory or URL; raises DataError for a URL of no known kind."""
    scheme, separator, _ = root.partition("://")
    if not separator:
        return LocalStorage(root)
    return ArrowStorage(root) if scheme in _ARROW_SCHEMES else FsspecStorage(root)


def expand_user(root: str) -> str:
    """Return a directory with `~` replaced by the home directory; a URL as it is."""
    return root if "://" in root else str(Path(root).expanduser())


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Turn what a filesystem raises into one line with the place in it."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:  # pyarrow, fsspec; a missing driver is an ImportError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{place}: cannot be read ({reason}); check the path and your access to it") from None
