"""Where decoded uint8 images live: in one array, in one ragged buffer, or still in their files.

Every store answers `read(indices)` with a Canvas. A store in memory is made of plain numpy
arrays, so Ray can hand it to every worker of a node without a copy.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raytricks.data.decode import DecodeSpec, decode_image


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


class FileStore:
    """Images that stay in their files and are decoded, in threads, whenever they are read."""

    def __init__(self, paths: Sequence[str], spec: DecodeSpec, num_threads: int | None = None) -> None:
        self.paths = tuple(paths)
        self.spec = spec
        self.num_threads = num_threads

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: np.ndarray) -> Canvas:
        """Decode a batch; raises DataError naming the file that cannot be decoded."""
        return canvas_of(list(decode_many([self.paths[i] for i in indices], self.spec, self.num_threads)))


ImageStore = UniformStore | RaggedStore | FileStore


def decode_many(paths: Sequence[str], spec: DecodeSpec, num_threads: int | None = None):
    """Yield the decoded (C, h, w) uint8 arrays of `paths` in order, decoding in threads."""
    with ThreadPoolExecutor(num_threads or os.cpu_count()) as pool:
        yield from pool.map(lambda path: decode_image(Path(path), spec), paths)


def canvas_of(images: Sequence[np.ndarray]) -> Canvas:
    """Place (C, h, w) arrays at the top left of one zero-filled batch."""
    heights = np.array([image.shape[1] for image in images])
    widths = np.array([image.shape[2] for image in images])
    pixels = np.zeros((len(images), images[0].shape[0], heights.max(), widths.max()), np.uint8)
    for row, image in enumerate(images):
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
    return Canvas(torch.from_numpy(pixels), heights, widths)


def store_in_memory(paths: Sequence[str], spec: DecodeSpec, heights: np.ndarray, widths: np.ndarray) -> ImageStore:
    """Decode files once into memory.

    Args:
        heights, widths: (N,) sizes that `spec` gives the images, from `DecodeSpec.output_sizes`.
    """
    sizes = spec.channels * heights * widths
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    buffer = np.empty(int(sizes.sum()), np.uint8)
    for start, size, image in zip(offsets, sizes, decode_many(paths, spec), strict=True):
        buffer[start : start + size] = image.reshape(-1)
    if len(set(heights.tolist())) == 1 and len(set(widths.tolist())) == 1:
        return UniformStore(buffer.reshape(len(paths), spec.channels, int(heights[0]), int(widths[0])))
    return RaggedStore(buffer, offsets, heights, widths, spec.channels)
