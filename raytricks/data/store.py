"""Decoded uint8 images: in one array or one ragged buffer, read by the batch.

Every store answers `read(indices)` with a PaddedBatch. A store in memory is made of plain numpy
arrays, so Ray can hand it to every worker of a node without a copy. Stores that decode are in
`decoding_store`, those that keep what was decoded on the disk in `disk_store`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raytricks.data.decode import resize_crop
from raytricks.limits import usable_cpus

_GROUPS_A_BATCH = 16


@dataclass(frozen=True)
class PaddedBatch:
    """A batch of images of possibly different sizes, each at the top left of its canvas.

    Attributes:
        pixels: (N, C, H, W) uint8.
        heights, widths: (N,) int64, the part of the canvas that is image.
    """

    pixels: Tensor
    heights: np.ndarray
    widths: np.ndarray


class ImageStore(Protocol):
    """Images that are read by their numbers."""

    def __len__(self) -> int: ...

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (heights, widths) of images, from which the boxes of `read_crops` are drawn."""
        ...

    def read(self, indices: np.ndarray) -> PaddedBatch:
        """Return a batch; raises DataError naming the image that cannot be read."""
        ...

    def read_crops(self, indices: np.ndarray, boxes: np.ndarray, side: int) -> PaddedBatch:
        """Cut each image's box and resize it; see `crops_of`."""
        ...


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

    def read_crops(self, indices: np.ndarray, boxes: np.ndarray, side: int) -> PaddedBatch:
        """Cut each image's box and resize it; see `crops_of`."""
        return crops_of(lambda index, box: _cut(self.pixels[index], box, side), indices, boxes, side, self.channels)

    def read(self, indices: np.ndarray) -> PaddedBatch:
        """Gather a batch: one copy, no per-image work."""
        _, _, height, width = self.pixels.shape
        count = len(indices)
        pixels = torch.from_numpy(self.pixels[indices])
        return PaddedBatch(pixels, np.full(count, height), np.full(count, width))


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

    def read_crops(self, indices: np.ndarray, boxes: np.ndarray, side: int) -> PaddedBatch:
        """Cut each image's box and resize it; see `crops_of`."""
        return crops_of(lambda index, box: _cut(self._image(index), box, side), indices, boxes, side, self.channels)

    def read(self, indices: np.ndarray) -> PaddedBatch:
        """Copy each image into the top left of a canvas as large as the largest of them."""
        return canvas_of([self._image(index) for index in indices])

    def _image(self, index: int) -> np.ndarray:
        shape = (self.channels, int(self.heights[index]), int(self.widths[index]))
        start = self.offsets[index]
        return self.buffer[start : start + shape[0] * shape[1] * shape[2]].reshape(shape)


def arranged(
    buffer: np.ndarray, heights: np.ndarray, widths: np.ndarray, channels: int
) -> "UniformStore | RaggedStore":
    """Return the store of images that lie one after the other in a buffer."""
    if len(set(heights.tolist())) == 1 and len(set(widths.tolist())) == 1:
        return UniformStore(buffer.reshape(len(heights), channels, int(heights[0]), int(widths[0])))
    offsets = np.concatenate([[0], np.cumsum(channels * heights * widths)[:-1]])
    return RaggedStore(buffer, offsets, heights, widths, channels)


def crops_of(
    crop: Callable[[int, list[int]], Tensor],
    indices: np.ndarray,
    boxes: np.ndarray,
    side: int,
    channels: int,
    num_threads: int | None = None,
) -> PaddedBatch:
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
    return PaddedBatch(pixels, sides, sides)


@cache
def shared_pool(num_threads: int | None = None) -> ThreadPoolExecutor:
    """Return the process's threads for decoding; None: one a core."""
    return ThreadPoolExecutor(num_threads or usable_cpus(), "raytricks-decode")


def _cut(image: np.ndarray, box: Sequence[int], side: int) -> Tensor:
    top, left, height, width = box
    cut = image[:, top : top + height, left : left + width].copy()  # Ray's shared arrays are read-only
    return resize_crop(torch.from_numpy(cut), (0, 0, height, width), side)


def canvas_of(images: Sequence[np.ndarray]) -> PaddedBatch:
    """Place (C, h, w) arrays at the top left of one zero-filled batch."""
    heights = np.array([image.shape[1] for image in images])
    widths = np.array([image.shape[2] for image in images])
    pixels = np.zeros((len(images), images[0].shape[0], heights.max(), widths.max()), np.uint8)
    for row, image in enumerate(images):
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
    return PaddedBatch(torch.from_numpy(pixels), heights, widths)
