"""Where uint8 images live: decoded in one array or one ragged buffer, or encoded in files or shards.

Every store answers `read(indices)` with a Canvas. A store in memory is made of plain numpy
arrays, so Ray can hand it to every worker of a node without a copy.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raytricks.data.catalog import ShardImages
from raytricks.data.decode import Decoder, DecodeSpec, decode_bytes, decode_image
from raytricks.data.shard_reader import ShardReader, default_threads


@dataclass(frozen=True)
class Canvas:
    """A batch of images of possibly different sizes, each at the top left of its canvas.

    Attributes:
        pixels: (N, C, H, W) uint8.
        heights, widths: (N,) int64, the part of the canvas that is image.
    """

    pixels: Tensor
    heights: np.ndarray
    widths: np.ndarray


@dataclass(frozen=True)
class UniformStore:
    """Images of one size in one (N, C, H, W) uint8 array."""

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: np.ndarray) -> Canvas:
        """Gather a batch: one copy, no per-image work."""
        _, _, height, width = self.pixels.shape
        count = len(indices)
        pixels = torch.from_numpy(self.pixels[indices])
        return Canvas(pixels, np.full(count, height), np.full(count, width))


@dataclass(frozen=True)
class RaggedStore:
    """Images of different sizes, one after the other in one uint8 buffer, each (C, h, w)."""

    buffer: np.ndarray
    offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    channels: int

    def __len__(self) -> int:
        return len(self.heights)

    def read(self, indices: np.ndarray) -> Canvas:
        """Copy each image into the top left of a canvas as large as the largest of them."""
        images = []
        for i in indices:
            shape = (self.channels, int(self.heights[i]), int(self.widths[i]))
            start = self.offsets[i]
            images.append(self.buffer[start : start + shape[0] * shape[1] * shape[2]].reshape(shape))
        return canvas_of(images)


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
    def decode(self, index: int) -> np.ndarray:
        """Return one image, (C, h, w) uint8; raises DataError naming it."""

    def decode_many(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Yield the images of `indices` in order, decoding in threads."""
        with ThreadPoolExecutor(self.num_threads or os.cpu_count()) as pool:
            yield from pool.map(self.decode, indices)

    def read(self, indices: np.ndarray) -> Canvas:
        """Decode a batch; raises DataError naming the image that cannot be decoded."""
        return canvas_of(list(self.decode_many(indices)))

    def in_memory(self, heights: np.ndarray, widths: np.ndarray) -> "UniformStore | RaggedStore":
        """Decode everything once into memory.

        Args:
            heights, widths: (N,) sizes that `spec` gives the images, from `DecodeSpec.output_sizes`.
        """
        sizes = self.spec.channels * heights * widths
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        buffer = np.empty(int(sizes.sum()), np.uint8)
        for start, size, image in zip(offsets, sizes, self.decode_many(range(len(self))), strict=True):
            buffer[start : start + size] = image.reshape(-1)
        if len(set(heights.tolist())) == 1 and len(set(widths.tolist())) == 1:
            return UniformStore(buffer.reshape(len(self), self.spec.channels, int(heights[0]), int(widths[0])))
        return RaggedStore(buffer, offsets, heights, widths, self.spec.channels)


class FileStore(DecodingStore):
    """Images in files of their own."""

    def __init__(
        self,
        paths: Sequence[str],
        spec: DecodeSpec,
        decoder: Decoder = "torchvision",
        num_threads: int | None = None,
    ) -> None:
        super().__init__(spec, decoder, num_threads)
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def decode(self, index: int) -> np.ndarray:
        """Read and decode one file."""
        return decode_image(Path(self.paths[index]), self.spec, self.decoder)


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

    def decode(self, index: int) -> np.ndarray:
        """Fetch and decode one image."""
        return decode_bytes(self._reader.read(index), self.spec, self.images.name(index), self.decoder)

    def fingerprint(self) -> str:
        """Return the sha256 of what is decoded, without reading it: the shards' digests, the rows, the form."""
        digest = hashlib.sha256(repr((self.spec, self.decoder, self.images.digests)).encode())
        for column in (self.images.shards, self.images.rows):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


ImageStore = UniformStore | RaggedStore | FileStore | ShardStore


def canvas_of(images: Sequence[np.ndarray]) -> Canvas:
    """Place (C, h, w) arrays at the top left of one zero-filled batch."""
    heights = np.array([image.shape[1] for image in images])
    widths = np.array([image.shape[2] for image in images])
    pixels = np.zeros((len(images), images[0].shape[0], heights.max(), widths.max()), np.uint8)
    for row, image in enumerate(images):
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
    return Canvas(torch.from_numpy(pixels), heights, widths)


def store_in_memory(
    paths: Sequence[str],
    spec: DecodeSpec,
    heights: np.ndarray,
    widths: np.ndarray,
    decoder: Decoder = "torchvision",
) -> UniformStore | RaggedStore:
    """Decode files once into memory; sizes as of `DecodingStore.in_memory`."""
    return FileStore(paths, spec, decoder).in_memory(heights, widths)
