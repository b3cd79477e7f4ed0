"""Where uint8 images live: decoded in one array or one ragged buffer, or encoded in files or shards.

Every store answers `read(indices)` with a Canvas. A store in memory is made of plain numpy
arrays, so Ray can hand it to every worker of a node without a copy.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raytricks.data.catalog import ShardImages
from raytricks.data.decode import (
    Decoder,
    DecodeSpec,
    decode_bytes,
    decode_crop,
    read_file,
    read_header,
    resize_crop,
)
from raytricks.data.shard_reader import ShardReader, default_threads

_GROUPS_A_BATCH = 16


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

    @property
    def channels(self) -> int:
        return self.pixels.shape[1]

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (heights, widths) of images."""
        count, (height, width) = len(indices), self.pixels.shape[2:]
        return np.full(count, height), np.full(count, width)

    def read_crops(self, indices: np.ndarray, boxes: np.ndarray, side: int) -> Canvas:
        """Cut each image's box and resize it; see `crops_of`."""
        return crops_of(lambda index, box: _cut(self.pixels[index], box, side), indices, boxes, side, self.channels)

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

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (heights, widths) of images."""
        return self.heights[indices], self.widths[indices]

    def read_crops(self, indices: np.ndarray, boxes: np.ndarray, side: int) -> Canvas:
        """Cut each image's box and resize it; see `crops_of`."""
        return crops_of(lambda index, box: _cut(self._image(index), box, side), indices, boxes, side, self.channels)

    def read(self, indices: np.ndarray) -> Canvas:
        """Copy each image into the top left of a canvas as large as the largest of them."""
        return canvas_of([self._image(index) for index in indices])

    def _image(self, index: int) -> np.ndarray:
        shape = (self.channels, int(self.heights[index]), int(self.widths[index]))
        start = self.offsets[index]
        return self.buffer[start : start + shape[0] * shape[1] * shape[2]].reshape(shape)


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
        return decode_bytes(content, self.spec, name, self.decoder)

    def read_crops(self, indices: np.ndarray, boxes: np.ndarray, side: int) -> Canvas:
        """Decode each image at its own size, cut its box and resize that; see `crops_of`."""

        def crop(index: int, box: list[int]) -> Tensor:
            content, name = self.encoded(index)
            return decode_crop(content, box, side, self.spec.channels, name, self.decoder)

        return crops_of(crop, indices, boxes, side, self.spec.channels, self.num_threads)

    def decode_many(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Return the images of `indices` in order, decoded in threads."""
        return shared_pool(self.num_threads).map(self.decode, indices)

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
        """Return the sha256 of what is decoded, without reading it: the shards' digests, the rows, the form."""
        digest = hashlib.sha256(repr((self.spec, self.decoder, self.images.digests)).encode())
        for column in (self.images.shards, self.images.rows):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


ImageStore = UniformStore | RaggedStore | FileStore | ShardStore


def crops_of(
    crop: Callable[[int, list[int]], Tensor],
    indices: np.ndarray,
    boxes: np.ndarray,
    side: int,
    channels: int,
    num_threads: int | None = None,
) -> Canvas:
    """Collect the crops of a batch, made in threads, in channels_last: as decoders write and models read pixels.

    Args:
        crop: of an image and its box: (C, S, S) uint8.
        boxes: (N, 4) top, left, height, width in pixels.
        side: S.
        num_threads: None: one a core; 1: the caller's.
    """
    shape = (len(indices), channels, side, side)
    pixels = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)

    def fill(rows: np.ndarray) -> None:
        for row in rows.tolist():
            pixels[row].copy_(crop(int(indices[row]), boxes[row].tolist()))

    rows = np.arange(len(indices))
    if num_threads == 1:
        fill(rows)
    else:  # by the group: handing over a single image costs as much as reading its header
        for _ in shared_pool(num_threads).map(fill, np.array_split(rows, _GROUPS_A_BATCH)):
            pass  # raises what a thread raised
    sides = np.full(len(indices), side)
    return Canvas(pixels, sides, sides)


@cache
def shared_pool(num_threads: int | None = None) -> ThreadPoolExecutor:
    """Return the process's threads for decoding; None: one a core."""
    return ThreadPoolExecutor(num_threads or os.cpu_count(), "raytricks-decode")


def _cut(image: np.ndarray, box: Sequence[int], side: int) -> Tensor:
    top, left, height, width = box
    cut = image[:, top : top + height, left : left + width].copy()  # Ray's shared arrays are read-only
    return resize_crop(torch.from_numpy(cut), (0, 0, height, width), side)


def canvas_of(images: Sequence[np.ndarray]) -> Canvas:
    """Place (C, h, w) arrays at the top left of one zero-filled batch."""
    heights = np.array([image.shape[1] for image in images])
    widths = np.array([image.shape[2] for image in images])
    pixels = np.zeros((len(images), images[0].shape[0], heights.max(), widths.max()), np.uint8)
    for row, image in enumerate(images):
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
    return Canvas(torch.from_numpy(pixels), heights, widths)
