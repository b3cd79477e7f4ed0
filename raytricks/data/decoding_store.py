"""Images that stay encoded, in files or in packed shards, and are decoded in threads when they are read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
import hashlib
import os
from pathlib import Path

import numpy as np
from torch import Tensor

from raytricks.data.decode import Decoder, DecodeSpec, decode_bytes, decode_crop, read_file, read_header
from raytricks.data.image_formats import naming
from raytricks.data.shard_format import ShardReader, default_threads
from raytricks.data.splits import DatasetImages, ShardImages
from raytricks.data.store import PaddedBatch, RaggedStore, UniformStore, arranged, canvas_of, crops_of, shared_pool
from raytricks.data.threads import map_in_order

_DECODED_AHEAD = 256  # images; enough for any number of threads, and a batch


class DecodingStore(ABC):
    """Images that stay encoded and are decoded, in threads, whenever they are read.

    Args:
        spec: the form they are decoded to.
        decoder: of JPEG, as data.decoder.
        num_threads: None: the machine's cores.
    """

    def __init__(self, spec: DecodeSpec, decoder: Decoder = "torchvision", num_threads: int | None = None) -> None:
        self.spec = spec
        self.decoder: Decoder = decoder
        self.num_threads = num_threads

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def encoded(self, index: int) -> tuple[bytes | memoryview, str]:
        """Return an image's file content and what errors call it; raises DataError."""

    @abstractmethod
    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (heights, widths) of images before they are brought to `spec`."""

    def decode(self, index: int) -> np.ndarray:
        """Return one image in its stored form, (C, h, w) uint8; raises DataError naming it."""
        content, name = self.encoded(index)
        return decode_bytes(content, self.spec, name, self.decoder, self._size(index))

    def read_crops(self, indices: np.ndarray, boxes: np.ndarray, side: int) -> PaddedBatch:
        """Decode each image at its own size, cut its box and resize that; see `crops_of`."""

        def crop(index: int, box: list[int]) -> Tensor:
            content, name = self.encoded(index)
            return decode_crop(
                content, box, side, self.spec.channels, name, self.decoder, self._size(index), self.spec.value_range
            )

        return crops_of(crop, indices, boxes, side, self.spec.channels, self.num_threads)

    def _size(self, index: int) -> tuple[int, int] | None:
        """Return the size that boxes and buffers are laid out for: a file that has changed since must not fit in."""
        heights, widths = self.sizes(np.array([index]))
        return int(heights[0]), int(widths[0])

    def decode_many(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Return the images of `indices` in order, decoded in threads, a bounded number of them ahead."""
        return map_in_order(shared_pool(self.num_threads), self.decode, indices, _DECODED_AHEAD)

    def read(self, indices: np.ndarray) -> PaddedBatch:
        """Decode a batch; raises DataError naming the image that cannot be decoded."""
        return canvas_of(list(self.decode_many(indices)))

    def decode_into(self, buffer: np.ndarray) -> None:
        """Decode all images, one after the other, into a flat uint8 buffer of just their size."""
        start = 0
        for image in self.decode_many(range(len(self))):
            buffer[start : start + image.size] = image.reshape(-1)
            start += image.size

    def in_memory(self, heights: np.ndarray, widths: np.ndarray) -> UniformStore | RaggedStore:
        """Decode everything once into memory.

        Args:
            heights, widths: (N,) sizes that `spec` gives the images, from `DecodeSpec.output_sizes`.
        """
        buffer = np.empty(int((heights * widths).sum()) * self.spec.channels, np.uint8)
        self.decode_into(buffer)
        return arranged(buffer, heights, widths, self.spec.channels)


class FileStore(DecodingStore):
    """Images in files of their own.

    Args:
        sizes: (N,) heights and widths; None: read from the files when they are needed.
    """

    def __init__(
        self,
        paths: Sequence[str],
        spec: DecodeSpec,
        decoder: Decoder = "torchvision",
        num_threads: int | None = None,
        sizes: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        super().__init__(spec, decoder, num_threads)
        self.paths = tuple(paths)
        self._sizes = sizes

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, index: int) -> tuple[bytes | memoryview, str]:
        path = self.paths[index]
        return read_file(Path(path)), path

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._sizes is None:
            headers = [read_header(Path(path)) for path in self.paths]
            self._sizes = np.array([h.height for h in headers]), np.array([h.width for h in headers])
        heights, widths = self._sizes
        return heights[indices], widths[indices]

    def _size(self, index: int) -> tuple[int, int] | None:
        return None if self._sizes is None else super()._size(index)

    def fingerprint(self) -> str:
        """Return the sha256 of what the decoded pixels depend on, without reading the images."""
        digest = hashlib.sha256(repr((self.spec, self.decoder)).encode())
        for path in self.paths:
            with naming(path):
                status = Path(path).stat()
            digest.update(os.fsencode(f"{path} {status.st_size} {status.st_mtime_ns}\n"))  # names may be no UTF-8
        return digest.hexdigest()


class EncodedStore(DecodingStore):
    """Images whose file contents are in memory."""

    def __init__(
        self,
        images: DatasetImages,
        spec: DecodeSpec,
        decoder: Decoder = "torchvision",
        num_threads: int | None = None,
    ) -> None:
        super().__init__(spec, decoder, num_threads)
        self.images = images

    def __len__(self) -> int:
        return len(self.images.encoded)

    def encoded(self, index: int) -> tuple[bytes | memoryview, str]:
        return self.images.encoded[index], f"{self.images.name}: image {index}"

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.images.heights[indices], self.images.widths[indices]

    def fingerprint(self) -> str:
        """Return the sha256 of what the decoded pixels depend on."""
        digest = hashlib.sha256(repr((self.spec, self.decoder)).encode())
        for content in self.images.encoded:
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()


class ShardStore(DecodingStore):
    """Images in packed shards, each fetched by its bytes alone. Pickles to places only, no open file."""

    def __init__(
        self,
        images: ShardImages,
        spec: DecodeSpec,
        decoder: Decoder = "torchvision",
        num_threads: int | None = None,
    ) -> None:
        super().__init__(spec, decoder, num_threads or default_threads(images.root))
        self.images = images
        self._reader = ShardReader(images)

    def __len__(self) -> int:
        return len(self.images.rows)

    def encoded(self, index: int) -> tuple[bytes | memoryview, str]:
        return self._reader.read(index), self.images.name(index)

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.images.heights[indices], self.images.widths[indices]

    def fingerprint(self) -> str:
        """Return the sha256 of what the decoded pixels depend on, without reading the images."""
        digest = hashlib.sha256(repr((self.spec, self.decoder, self.images.digests)).encode())
        for column in (self.images.shards, self.images.rows):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()
