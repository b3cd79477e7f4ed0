"""Decoded images in one file that every process of a machine maps: the pixels are in memory once.

The file is named by what the pixels depend on, so runs and trials that want the same ones find
it, and a process that comes while another decodes waits for it. A pickled store carries no
pixels: on another machine it decodes there, once.
"""

from contextlib import contextmanager, suppress
import fcntl
import os
from pathlib import Path

import numpy as np

from raytricks.data.decoding_store import EncodedStore, FileStore, ShardStore
from raytricks.data.store import PaddedBatch, RaggedStore, UniformStore, arranged
from raytricks.errors import DataError
from raytricks.files import user_cache

_SUFFIX = ".pixels"


def default_cache_dir() -> Path:
    """Return the user's own directory for it."""
    return user_cache("decoded")


class DiskStore:
    """Images decoded once a machine, into a file that is mapped.

    Args:
        source: what is decoded.
        heights, widths: (N,) sizes that the source's `spec` gives its images.
        folder: directory of such files, on a local disk.
    """

    def __init__(
        self, source: FileStore | ShardStore | EncodedStore, heights: np.ndarray, widths: np.ndarray, folder: Path
    ) -> None:
        self.source = source
        self._fingerprint = source.fingerprint()
        self.path = Path(folder, self._fingerprint[:32] + _SUFFIX)
        self._heights, self._widths = heights, widths
        self._mapped: UniformStore | RaggedStore | None = None

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_mapped": None}

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_bytes(self) -> int:
        """What the pixels take on the disk."""
        return int((self._heights * self._widths).sum()) * self.source.spec.channels

    def mapped(self) -> UniformStore | RaggedStore:
        """Return the images over the mapped file, decoding them first when no process has.

        Raises:
            DataError: the file cannot be made, or an image cannot be decoded.
        """
        if self._mapped is None:
            if not self._is_whole():
                self._build()
            pixels = np.memmap(self.path, np.uint8, "r")
            self._mapped = arranged(pixels, self._heights, self._widths, self.source.spec.channels)
        return self._mapped

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._heights[indices], self._widths[indices]

    def read(self, indices: np.ndarray) -> PaddedBatch:
        return self.mapped().read(indices)

    def read_crops(self, indices: np.ndarray, boxes: np.ndarray, side: int) -> PaddedBatch:
        return self.mapped().read_crops(indices, boxes, side)

    def fingerprint(self) -> str:
        """Return the sha256 of what the pixels depend on."""
        return self._fingerprint

    def _is_whole(self) -> bool:
        return self.path.is_file() and self.path.stat().st_size == self.num_bytes  # it got its name when it was whole

    def _build(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_suffix(".lock")):
                if self._is_whole():  # another process made it while this one waited
                    return
                _remove_abandoned(self.path.parent)
                unfinished = self.path.with_suffix(".unfinished")  # of this or of a killed process: the lock is ours
                try:
                    self._decode_to(unfinished)
                    self._require_unchanged()
                    unfinished.replace(self.path)
                finally:
                    unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"data.cache_dir {self.path.parent}: the {self.num_bytes / 2**30:.2f} GiB of decoded images cannot be "
                f"kept there ({error.strerror}); choose another directory or set data.cache=none"
            ) from error

    def _require_unchanged(self) -> None:
        """Keep nothing under the name of other images: the file stays for later runs."""
        if self.source.fingerprint() != self._fingerprint:
            raise DataError(
                f"{self.source.encoded(0)[1]} and the images beside it: some changed while they were decoded for "
                "data.cache=disk; leave them alone and start again"
            )

    def _decode_to(self, path: Path) -> None:
        with path.open("w+b") as file:
            os.posix_fallocate(file.fileno(), 0, self.num_bytes)  # a full disk is an error here, a crash in the map
            pixels = np.memmap(file, np.uint8, "r+", shape=(self.num_bytes,))
            self.source.decode_into(pixels)
            pixels.flush()


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left half decoded; it may be as large as the data, and is never used."""
    for unfinished in folder.glob("*.unfinished"):
        with suppress(OSError), unfinished.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by whoever decodes it now, this process too
            unfinished.unlink()


@contextmanager
def _locked(path: Path):
    """Hold a lock that ends with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
