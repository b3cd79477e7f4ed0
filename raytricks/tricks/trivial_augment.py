"""TrivialAugment: one random operation of random strength an image.

The operations, their strengths and their arithmetic are those of torchvision's
TrivialAugmentWide; only the draws are ours, so that an image's operation is its own.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from raytricks.parts.hooks import Hooks

TRIVIAL_AUGMENT_DRAWS = 3  # uniforms an image: operation, strength, sign

_TORCHVISION = v2.TrivialAugmentWide()
OPERATIONS = tuple(_TORCHVISION._AUGMENTATION_SPACE)
_MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_LARGEST_MAP = 64 * 64  # pixels; the 305 maps of this size take 10 MB


def trivial_augment(images: Tensor, draws: np.ndarray) -> Tensor:
    """Apply to each image an operation of its own.

    Args:
        images: (N, C, H, W) uint8, or float on the scale 0..255, which is rounded; C is 1 or 3.
            Saturation leaves a gray image as it is.
        draws: (N, 3) uniforms in [0, 1).

    Returns:
        (N, C, H, W) uint8.

    Raises:
        ValueError: the images have other channels, or the draws another shape.

    Source: Müller & Hutter 2021, algorithm 1 and table 1 (wide).
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must have the shape (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        images = images.round().clamp_(0, 255).to(torch.uint8)
    height, width = images.shape[2:]
    groups = _groups(choose_operations(draws, len(images), height, width))
    result = images.clone()
    if height * width <= _LARGEST_MAP:
        moved = [(row, choice) for choice, rows in groups.items() if choice[0] in _MOVES for row in rows]
        groups = {choice: rows for choice, rows in groups.items() if choice[0] not in _MOVES}
        if moved:
            rows = torch.tensor([row for row, _ in moved], device=images.device)
            result.index_copy_(0, rows, _move(images.index_select(0, rows), [choice for _, choice in moved]))
    for choice, rows in groups.items():
        chosen = torch.tensor(rows, device=images.device)
        result.index_copy_(0, chosen, apply_operation(images.index_select(0, chosen), *choice))
    return result


def choose_operations(draws: np.ndarray, num_images: int, height: int, width: int) -> list[tuple[str, float]]:
    """Return the operation of each image and its magnitude, 0.0 where it has none.

    The operation is uniform over `OPERATIONS`, its magnitude over torchvision's bins, and half of
    those that have a sign are negative.

    Raises:
        ValueError: the draws do not have the shape (num_images, 3).
    """
    if draws.shape != (num_images, TRIVIAL_AUGMENT_DRAWS):
        raise ValueError(f"draws must have the shape {(num_images, TRIVIAL_AUGMENT_DRAWS)}, got {draws.shape}")
    num_bins = _TORCHVISION.num_magnitude_bins
    magnitudes, signed = _magnitudes(num_bins, height, width)
    operation = (draws[:, 0] * len(OPERATIONS)).astype(np.int64)
    strength = (draws[:, 1] * num_bins).astype(np.int64)
    sign = np.where(signed[operation] & (draws[:, 2] < 0.5), -1.0, 1.0)
    chosen = magnitudes[operation, strength] * sign
    return [(OPERATIONS[index], magnitude) for index, magnitude in zip(operation, chosen.tolist(), strict=True)]


def apply_operation(images: Tensor, operation: str, magnitude: float) -> Tensor:
    """Apply one operation to all of the (N, C, H, W) images, filling with 0."""
    # torchvision draws inside forward, so the step that follows its draw is called
    return _TORCHVISION._apply_image_or_video_transform(  # pyright: ignore[reportReturnType]
        images, operation, magnitude, interpolation=_TORCHVISION.interpolation, fill=_TORCHVISION._fill
    )


def _move(images: Tensor, choices: list[tuple[str, float]]) -> Tensor:
    """Apply to each image a geometric operation of its own, all at once.

    torchvision's take one image's operation a call, which costs more than small images themselves.
    """
    count, channels, height, width = images.shape
    sources = torch.stack([_source_pixels(*choice, height, width) for choice in choices]).to(images.device)
    with_fill = torch.cat([images.new_zeros(count, channels, 1), images.flatten(2)], dim=2)
    return with_fill.gather(2, sources[:, None].expand(-1, channels, -1)).view_as(images)


@lru_cache(maxsize=512)
def _source_pixels(operation: str, magnitude: float, height: int, width: int) -> Tensor:
    """Return (H * W,) int64: 1 + the pixel of an image that each pixel of the result shows, 0 for none.

    torchvision's own operation, applied to the pixels' numbers: with nearest neighbours they move whole.
    """
    numbers = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, 1, height, width)
    return apply_operation(numbers, operation, magnitude).flatten().long()


def _magnitudes(num_bins: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (operations, bins) magnitudes and which operations have a sign."""
    space = _TORCHVISION._AUGMENTATION_SPACE.values()
    rows = [table(num_bins, height, width) for table, _ in space]
    magnitudes = np.stack([np.zeros(num_bins) if row is None else row.double().numpy() for row in rows])
    return magnitudes, np.array([signed for _, signed in space])


def _groups(choices: list[tuple[str, float]]) -> dict[tuple[str, float], list[int]]:
    """Return the rows of each choice, so that equal ones are applied at once."""
    groups: dict[tuple[str, float], list[int]] = {}
    for row, choice in enumerate(choices):
        if choice[0] != "Identity":
            groups.setdefault(choice, []).append(row)
    return groups


def _pixels(images: Tensor, draws: np.ndarray) -> Tensor:
    return trivial_augment(images, draws)


HOOKS = Hooks(num_draws=TRIVIAL_AUGMENT_DRAWS, pixels=_pixels)
