"""Byte ranges of files in a directory, on this machine or on a remote filesystem.

A directory's path is read through memory maps; a URL through pyarrow where it has the
filesystem built in (s3, gs, abfs, hdfs), else through fsspec.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
import fnmatch
import logging
import mmap
from pathlib import Path
import resource
from typing import Any, TypeVar

import fsspec

from raytricks.config.credentials import redacted
from raytricks.errors import DataError
from raytricks.retries import with_retries

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
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
        return _tried(self.place(name), lambda: path.stat().st_size if path.is_file() else None)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> memoryview:
        view = self._maps.get(name)
        if view is None:
            if len(self._maps) >= _OPEN_FILES:
                self._maps.clear()  # a map goes when the last view of it does
            view = self._maps.setdefault(name, self._map(name))
        return view[offset:] if length is None else view[offset : offset + length]

    def _map(self, name: str) -> memoryview:
        def read() -> memoryview:
            with Path(self.root, name).open("rb") as file:
                if file.seek(0, 2) == 0:
                    return memoryview(b"")  # an empty file cannot be mapped
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

        return _tried(self.place(name), read)


class ArrowStorage(Storage):
    """A URL of a filesystem that pyarrow has built in."""

    def __init__(self, root: str) -> None:
        from pyarrow.fs import FileSystem

        super().__init__(root)
        self._filesystem, self._directory = _tried(root, lambda: FileSystem.from_uri(self.root))
        self._files: dict[str, Any] = {}

    def size(self, name: str) -> int | None:
        found = _tried(self.place(name), lambda: self._filesystem.get_file_info(f"{self._directory}/{name}"))
        return found.size if found.is_file else None

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        def read() -> bytes:
            file = self._files.get(name)
            if file is None:
                if len(self._files) >= _OPEN_FILES:
                    self._files.clear()  # closed when the last thread has read from it
                opened = self._filesystem.open_input_file(f"{self._directory}/{name}")
                file = self._files.setdefault(name, opened)
            try:
                return file.read_at(file.size() - offset if length is None else length, offset)
            except OSError:
                self._files.pop(name, None)  # a stale handle does not recover
                raise

        return _tried(self.place(name), read)


class FsspecStorage(Storage):
    """Any other URL."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._filesystem, self._directory = _tried(root, lambda: fsspec.core.url_to_fs(self.root))

    def size(self, name: str) -> int | None:
        try:
            return _tried(self.place(name), lambda: self._filesystem.size(f"{self._directory}/{name}"))
        except DataError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        end = None if length is None else offset + length
        path = f"{self._directory}/{name}"
        return _tried(self.place(name), lambda: self._filesystem.cat_file(path, start=offset, end=end))


def storage_at(root: str) -> Storage:
    """Return the storage of a directory or URL; raises DataError for a URL of no known kind."""
    scheme, separator, _ = root.partition("://")
    if not separator:
        return LocalStorage(root)
    return ArrowStorage(root) if scheme in _ARROW_SCHEMES else FsspecStorage(root)


def remote_files(url: str) -> tuple[str, list[str]]:
    """Return a directory's URL and the names of the files below it, sorted, that a URL stands for.

    Args:
        url: of a directory, of a file, or with a pattern (*, ?) as its last part.

    Raises:
        DataError: nothing there, or it cannot be asked.
    """
    base, query = _without_options(url)
    root, last = base.rstrip("/").rpartition("/")[::2]
    is_pattern = any(sign in last for sign in "*?[")
    folder = root if is_pattern else base.rstrip("/")
    names = _tried(url, lambda: _names_below(folder + query))
    if is_pattern:
        names = fnmatch.filter([name for name in names if "/" not in name], last)
    elif names is not None and not names:  # an object store has no directory of one file
        folder, names = root, [last] if storage_at(root + query).size(last) is not None else []
    if not names:
        raise DataError(f"{redacted(url)}: no such file, folder or pattern of files")
    return folder + query, sorted(names)


def _without_options(url: str) -> tuple[str, str]:
    """Tell a pattern's ? from the options of a URL, which are key=value."""
    base, mark, options = url.rpartition("?")
    return (base, mark + options) if mark and "=" in options else (url, "")


def _names_below(root: str) -> list[str]:
    """Return the files below a directory's URL, relative to it; none where it is no directory."""
    if root.partition("://")[0] in _ARROW_SCHEMES:
        from pyarrow.fs import FileSelector, FileSystem, FileType

        filesystem, directory = FileSystem.from_uri(root)
        if filesystem.get_file_info(directory).type == FileType.File:
            return []
        found = filesystem.get_file_info(FileSelector(directory, allow_not_found=True, recursive=True))
        return [info.path[len(directory) :].lstrip("/") for info in found if info.type == FileType.File]
    filesystem, directory = fsspec.core.url_to_fs(root)
    found = filesystem.find(directory) if filesystem.isdir(directory) else []
    return [str(path)[len(directory) :].lstrip("/") for path in found]


def expand_user(root: str) -> str:
    """Return a directory with `~` replaced by the home directory; a URL as it is."""
    return root if "://" in root else str(Path(root).expanduser())


def _tried(place: str, act: Callable[[], _T]) -> _T:
    """Wait out faults that pass by, and turn the others into one line with the place in it, and no password."""
    try:
        return with_retries(act, redacted(place), note=lambda line: _LOG.warning("%s", _hidden(place, line)))
    except (OSError, ValueError, ImportError) as error:  # pyarrow, fsspec; a missing driver is an ImportError
        reason = _hidden(place, " ".join(str(error).split())) or type(error).__name__
        raise DataError(
            f"{redacted(place)}: cannot be read ({reason}); check the path and your access to it"
        ) from error


def _hidden(place: str, text: str) -> str:
    """Return a text without what logs in, also where a filesystem has left the URL's beginning out."""
    _, _, rest = place.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    return redacted(text.replace(f"{user}@", "...@") if at else text)
