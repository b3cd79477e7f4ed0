"""Training and evaluation transforms, a batch at a time.

Each transform is drawn from (seed, epoch, sample) on the CPU as a few numbers an image and
applied to the whole batch on its device. Source of the training crop, the flip and the
evaluation crop: He et al., section 2.1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raytricks.data.randomness import sample_uniforms
from raytricks.data.store import PaddedBatch

CROP_RATIO = 0.875  # evaluation: short side 256, central 224 (paper, section 2.1)
_MOVE_DRAWS = 3  # flip, two of the shift
_CROP_ATTEMPTS = 10  # as torchvision's RandomResizedCrop, before it takes the central crop
_CACHE_BYTES = 2**19  # of a core, taken by the part of a batch that is worked on
_LARGE_IMAGE = 2**14  # values from which on a call an image is cheaper than copies of the batch


class ImageTricks(Protocol):
    """What else changes a training image, after its crop, shift and flip.

    `draw(num_draws, stream)` gives (N, num_draws) float64 uniforms in [0, 1), a row an image; nothing else may be
    random.
    """

    def on_pixels(self, images: Tensor, draw: Callable[[int, int], np.ndarray]) -> Tensor:
        """Change (N, C, S, S) pixels before normalisation: uint8 or float32 on the scale 0..255, as is the result."""
        ...

    def on_inputs(self, images: Tensor, draw: Callable[[int, int], np.ndarray]) -> Tensor:
        """Change (N, C, S, S) float32 after normalisation."""
        ...

    def describe(self) -> dict[str, str]:
        """Return what the changed images depend on beside the seed, as plain values."""
        ...


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How stored uint8 images become model input.

    Attributes:
        kind: none, shift or random_resized_crop, for training.
        image_size: side of the result, pixels, unless training asks for another.
        mean, std: per channel, on the 0..1 scale.
        value_range: as of `raytricks.data.decode.DecodeSpec`, which images to predict for must be decoded with; None:
            no training image had more than 8 bits a value.
    """

    kind: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shift_pixels: int = 0
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: bool = True
    value_range: tuple[float, float] | None = None

    def normalize(self, images: Tensor) -> Tensor:
        """Return (images / 255 - mean) / std as float32 in the images' memory format."""
        mean = torch.tensor(self.mean, device=images.device) * 255
        std = torch.tensor(self.std, device=images.device) * 255
        result = torch.empty_like(images, dtype=torch.float32)
        if images.is_contiguous(memory_format=torch.channels_last):  # rows of pixels: long enough to vectorise
            width = images.shape[3]
            source, target = (tensor.permute(0, 2, 3, 1).flatten(2) for tensor in (images, result))
            mean, std = mean.repeat(width), std.repeat(width)
        else:
            source, target = images, result
            mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        for a, b in _in_cache(images):
            target[a:b].copy_(source[a:b]).sub_(mean).div_(std)
        return result

    @property
    def crops(self) -> bool:
        """Whether images are read as crops: `train_boxes` and `central_squares` say of what."""
        return self.kind == "random_resized_crop"

    def train_boxes(
        self, heights: np.ndarray, widths: np.ndarray, samples: np.ndarray, seed: int, epoch: int
    ) -> np.ndarray:
        """Draw the (N, 4) boxes that training images of these sizes are read from; see `random_crop_boxes`."""
        draws = sample_uniforms(seed, epoch, samples, _MOVE_DRAWS + 4 * _CROP_ATTEMPTS)[:, _MOVE_DRAWS:]
        return random_crop_boxes(heights, widths, draws, self.crop_scale, self.crop_aspect)

    @property
    def evaluation_side(self) -> int:
        """Pixels that the shorter side of an image has when its centre is cut out for evaluation."""
        return round(self.image_size / CROP_RATIO)

    def train(
        self,
        canvas: PaddedBatch,
        samples: np.ndarray,
        seed: int,
        epoch: int,
        device: torch.device,
        image_tricks: ImageTricks | None = None,
        side: int | None = None,
    ) -> Tensor:
        """Augment and normalise the images of `samples`, crops already cut: (N, C, S, S) float32 on `device`.

        Args:
            side: S; None: image_size.
        """
        pixels = resize_squares(self._move(canvas, samples, seed, epoch, device), side or self.image_size)
        if image_tricks is None:
            return self.normalize(pixels)

        def draw(num_draws: int, stream: int) -> np.ndarray:
            return sample_uniforms(seed, epoch, samples, num_draws, stream)

        return image_tricks.on_inputs(self.normalize(image_tricks.on_pixels(pixels, draw)), draw)

    def _move(self, canvas: PaddedBatch, samples: np.ndarray, seed: int, epoch: int, device: torch.device) -> Tensor:
        """Shift and flip: (N, C, S, S) uint8 on `device`."""
        draws = sample_uniforms(seed, epoch, samples, _MOVE_DRAWS)
        pixels = to_device(canvas.pixels, device)
        if self.kind == "shift" and self.shift_pixels:
            span = 2 * self.shift_pixels + 1
            offsets = torch.from_numpy((draws[:, 1:3] * span).astype(np.int64) - self.shift_pixels)
            pixels = shift_images(pixels, offsets.to(device), self.shift_pixels)
        if not self.horizontal_flip:
            return pixels
        return flip_images(pixels, draws[:, 0] < 0.5)

    def evaluate(self, canvas: PaddedBatch, device: torch.device) -> Tensor:
        """Bring images that were read for evaluation to (N, C, S, S) float32, S = image_size.

        Raises:
            ValueError: the images are not squares of `evaluation_side` (crops) or `image_size`.
        """
        return self.normalize(to_device(self.evaluation_pixels(canvas.pixels), device))

    def evaluation_pixels(self, squares: Tensor) -> Tensor:
        """Return the (N, C, S, S) part of stored squares that the model sees; raises ValueError as `evaluate`."""
        side = self.evaluation_side if self.crops else self.image_size
        if squares.shape[2:] != (side, side):
            raise ValueError(f"images must be {side} x {side} for evaluation, got {tuple(squares.shape[2:])}")
        if not self.crops:
            return squares
        margin = (side - self.image_size) // 2
        return squares[:, :, margin : margin + self.image_size, margin : margin + self.image_size]


def to_device(pixels: Tensor, device: torch.device) -> Tensor:
    """Move a batch without waiting for the copy where the device allows it."""
    if device.type != "cuda":
        return pixels
    return pixels.pin_memory().to(device, non_blocking=True)


def _in_cache(images: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the (first, last + 1) images of parts that stay in a core's cache as float32; on a GPU, all at once."""
    count = len(images)
    if images.device.type == "cpu":
        count = max(1, _CACHE_BYTES // max(1, 4 * images[0].numel())) if count else 1
    return ((a, min(a + count, len(images))) for a in range(0, len(images), max(1, count)))


def resize_squares(images: Tensor, side: int) -> Tensor:
    """Return (N, C, S, S) squares with another side, antialiased, float32 on the same scale; equal ones as they are."""
    if images.shape[2] == side:
        return images
    return torch.nn.functional.interpolate(images.float(), size=(side, side), mode="bilinear", antialias=True)


def flip_images(images: Tensor, flip: np.ndarray) -> Tensor:
    """Mirror the (N, C, H, W) images for which the (N,) bool `flip` is set; may do so in place."""
    if images.device.type == "cpu" and images[0].numel() >= _LARGE_IMAGE:
        for row in np.flatnonzero(flip):
            images[row].copy_(images[row].flip(2))
        return images
    both = torch.cat([images, images.flip(3)])  # selecting whole images is twice as fast as torch.where
    chosen = torch.from_numpy(np.arange(len(images)) + flip * len(images))
    return both.index_select(0, chosen.to(images.device))


def shift_images(images: Tensor, offsets: Tensor, reach: int) -> Tensor:
    """Translate each image, filling with zeros.

    Args:
        images: (N, C, H, W).
        offsets: (N, 2) rows and columns in [-reach, reach]; positive moves down and right.
    """
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (reach, reach, reach, reach))
    _, plane, pitch, _ = padded.stride()
    window = (channels - 1) * plane + (height - 1) * pitch + width  # pixels from its first to its last
    shape = (padded.numel() - window + 1, channels, height, width)
    windows = padded.as_strided(shape, (1, plane, pitch, 1))  # a view: a window at every pixel
    first = torch.arange(count, device=images.device) * padded.stride(0)
    return windows.index_select(0, first + (reach - offsets[:, 0]) * pitch + reach - offsets[:, 1])


def random_crop_boxes(
    heights: np.ndarray,
    widths: np.ndarray,
    draws: np.ndarray,
    scale: tuple[float, float],
    aspect: tuple[float, float],
) -> np.ndarray:
    """Draw the boxes of random resized crops.

    Args:
        heights, widths: (N,) of the images, pixels.
        draws: (N, 4 * attempts) uniforms.
        scale: range of the box's part of the image's area.
        aspect: range of width / height, drawn uniformly in its logarithm.

    Returns:
        (N, 4) int64 top, left, height, width: the first attempt that fits, else the largest
        central box of a permitted aspect.
    """
    central = _largest_central_boxes(heights, widths, aspect)
    heights, widths = heights[:, None], widths[:, None]
    u = draws.reshape(len(draws), -1, 4)
    area = heights * widths * (scale[0] + u[..., 0] * (scale[1] - scale[0]))
    ratio = np.exp(np.log(aspect[0]) + u[..., 1] * (np.log(aspect[1]) - np.log(aspect[0])))
    box_width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    box_height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (box_width > 0) & (box_width <= widths) & (box_height > 0) & (box_height <= heights)
    top = (u[..., 2] * (heights - box_height + 1)).astype(np.int64)
    left = (u[..., 3] * (widths - box_width + 1)).astype(np.int64)
    first = fits.argmax(axis=1)
    boxes = np.stack([top, left, box_height, box_width], axis=2)[np.arange(len(u)), first]
    return np.where(fits.any(axis=1)[:, None], boxes, central)


def _largest_central_boxes(heights: np.ndarray, widths: np.ndarray, aspect: tuple[float, float]) -> np.ndarray:
    height = np.minimum(heights, np.rint(widths / aspect[0])).astype(np.int64)
    width = np.minimum(widths, np.rint(heights * aspect[1])).astype(np.int64)
    height, width = np.maximum(height, 1), np.maximum(width, 1)
    return np.stack([(heights - height) // 2, (widths - width) // 2, height, width], axis=1)


def central_squares(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return the (N, 4) largest central squares: top, left, height, width."""
    side = np.minimum(heights, widths)
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1)
