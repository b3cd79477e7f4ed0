"""Fetch single images of packed shards by their byte ranges."""

import hashlib
import os
from typing import TYPE_CHECKING

from raytricks.data.shard_format import ShardEntry
from raytricks.data.splits import ShardImages
from raytricks.data.storage import Storage, storage_at
from raytricks.errors import DataError

if TYPE_CHECKING:
    from pyarrow import Table

_REMOTE_THREADS = 16  # wait for the network, not for a core
_AGAIN = "fetch the file again, or pack the data again"


class ShardReader:
    """Reads the encoded bytes of images. Threads may share one; a pickled one opens its files again."""

    def __init__(self, images: ShardImages) -> None:
        self._images = images
        self._storage = storage_at(images.root)
        self._checked: set[int] = set()

    def __getstate__(self):
        return {"_images": self._images}

    def __setstate__(self, state) -> None:
        self.__init__(state["_images"])

    def read(self, index: int) -> bytes | memoryview:
        """Return the encoded image; of local shards a view of the map, without a copy.

        Raises:
            DataError: the shard is missing, or of another size than when it was packed.
        """
        images = self._images
        shard = int(images.shards[index])
        if shard not in self._checked:  # a map of a file that has shrunk would kill the process
            require_size(self._storage, images.files[shard], images.file_bytes[shard])
            self._checked.add(shard)
        return self._storage.read(images.files[shard], int(images.offsets[index]), int(images.lengths[index]))


def require_size(storage: Storage, name: str, expected: int) -> None:
    """Raise DataError when a shard is missing or its size is wrong."""
    size = storage.size(name)
    if size is None:
        raise DataError(f"{storage.place(name)}: is missing; {_AGAIN}")
    if size != expected:
        raise DataError(f"{storage.place(name)}: holds {size:,} bytes, must be {expected:,}; {_AGAIN}")


def read_index(storage: Storage, entry: ShardEntry) -> "Table":
    """Read a shard's index: source, label, height, width, is_grayscale, offset, length of each image.

    Raises:
        DataError: it is missing or damaged.
    """
    import pyarrow as pa  # a third of a second, paid only for shards

    require_size(storage, entry.index_file, entry.index_bytes)
    content = storage.read(entry.index_file)
    if sha256_of(content) != entry.index_sha256:
        raise DataError(f"{storage.place(entry.index_file)}: damaged, its sha256 differs; {_AGAIN}")
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()


def sha256_of(content: bytes | memoryview) -> str:
    """Return the sha256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def default_threads(root: str) -> int:
    """Return how many images to fetch and decode at once."""
    cores = os.cpu_count() or 1
    return max(cores, _REMOTE_THREADS) if "://" in root else cores
