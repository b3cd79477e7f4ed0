"""RandAugment: several random operations of one strength an image.

The operations and their arithmetic are those of torchvision's RandAugment; only the draws are ours, so that an
image's operations are its own.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from raytricks.parts.hooks import Hooks
from raytricks.parts.tricks import RandAugmentConfig
from raytricks.tricks.trivial_augment import apply_operation

MOST_OPERATIONS = 4
DRAWS_AN_OPERATION = 2  # which, sign
_SPACE = v2.RandAugment._AUGMENTATION_SPACE
OPERATIONS = tuple(_SPACE)


def rand_augment(images: Tensor, draws: np.ndarray, num_operations: int, magnitude: int, num_bins: int = 31) -> Tensor:
    """Apply to each image operations of its own, one after another.

    Args:
        images: (N, C, H, W) uint8, or float on the scale 0..255, which is rounded; C is 1 or 3.
        draws: (N, 2 * num_operations or more) uniforms in [0, 1).
        num_operations: >= 1 (Cubuk et al.: 2).
        magnitude: index of the strength, in [0, num_bins) (Cubuk et al.: 9 of 31 for a ResNet-50).

    Returns:
        (N, C, H, W) uint8.

    Raises:
        ValueError: the images have other channels, or there are too few draws.

    Source: Cubuk et al. 2020, section 3; torchvision's RandAugment.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must have the shape (N, 1 or 3, H, W), got {tuple(images.shape)}")
    fewest = DRAWS_AN_OPERATION * num_operations
    if draws.ndim != 2 or len(draws) != len(images) or draws.shape[1] < fewest:
        raise ValueError(f"draws must have the shape ({len(images)}, {fewest} or more), got {draws.shape}")
    result = images.round().clamp(0, 255).to(torch.uint8) if images.dtype != torch.uint8 else images.clone()
    for number in range(num_operations):
        own = draws[:, DRAWS_AN_OPERATION * number : DRAWS_AN_OPERATION * (number + 1)]
        for (operation, strength), rows in _groups(own, magnitude, num_bins, *images.shape[2:]):
            chosen = torch.tensor(rows, device=images.device)
            result.index_copy_(0, chosen, apply_operation(result.index_select(0, chosen), operation, strength))
    return result


def _groups(
    draws: np.ndarray, magnitude: int, num_bins: int, height: int, width: int
) -> Iterator[tuple[tuple[str, float], list[int]]]:
    """Yield each operation with its strength and the images that get it, so that equal ones are applied at once."""
    groups: dict[tuple[str, float], list[int]] = {}
    for row, (which, sign) in enumerate(draws):
        operation = OPERATIONS[int(which * len(OPERATIONS))]
        strengths, is_signed = _SPACE[operation]
        values = strengths(num_bins, height, width)
        strength = 0.0 if values is None else float(values[magnitude])
        if operation != "Identity":
            groups.setdefault((operation, -strength if is_signed and sign < 0.5 else strength), []).append(row)
    yield from groups.items()


def _pixels(images: Tensor, draws: np.ndarray, settings: RandAugmentConfig) -> Tensor:
    return rand_augment(images, draws, settings.operations, settings.magnitude)


HOOKS = Hooks(num_draws=MOST_OPERATIONS * DRAWS_AN_OPERATION, pixels=_pixels)
