"""Random erasing: a rectangle of some training images is replaced by the mean pixel."""

import numpy as np
import torch
from torch import Tensor

from raytricks.parts.hooks import Hooks
from raytricks.parts.tricks import RandomErasingConfig

_ATTEMPTS = 10  # as torchvision's RandomErasing, before it leaves the image whole
ERASING_DRAWS = 1 + 4 * _ATTEMPTS  # uniforms an image: whether, then area, aspect, top and left of each attempt


def erase(
    images: Tensor, draws: np.ndarray, probability: float, area: tuple[float, float], aspect: tuple[float, float]
) -> Tensor:
    """Set a random rectangle of some images to 0, the mean pixel of normalised inputs.

    Zhong et al. prefer random values; 0 is torchvision's default.

    Args:
        images: (N, C, H, W) float, normalised.
        draws, probability, area, aspect: see `erasing_boxes`.

    Returns:
        (N, C, H, W), a copy; `images` itself at probability 0.

    Raises:
        ValueError: see `erasing_boxes`.

    Source: Zhong et al. 2017, algorithm 1.
    """
    height, width = images.shape[2:]
    boxes = erasing_boxes(draws, height, width, probability, area, aspect)
    if draws.shape[0] != len(images):
        raise ValueError(f"draws must have a row for each of {len(images)} images, got {draws.shape[0]}")
    if probability == 0:
        return images
    top, left, box_height, box_width = torch.from_numpy(boxes).to(images.device)[:, :, None].unbind(1)
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    in_rows = (rows >= top) & (rows < top + box_height)
    in_columns = (columns >= left) & (columns < left + box_width)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def erasing_boxes(
    draws: np.ndarray,
    height: int,
    width: int,
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> np.ndarray:
    """Draw the rectangles to erase.

    Args:
        draws: (N, ERASING_DRAWS) uniforms in [0, 1).
        height, width: of the images, pixels.
        probability: part of the images that lose a rectangle, in [0, 1] (Zhong: 0.5); 0: off.
        area: range of the rectangle's part of the image, in (0, 1], drawn uniformly (Zhong: 0.02
            to 0.4).
        aspect: range of its height / width, > 0, drawn uniformly in its logarithm, as torchvision
            does and Zhong et al. do not.

    Returns:
        (N, 4) int64 top, left, height, width: the first attempt whose rectangle is lower and
        narrower than the image; all 0 where none is, or the image is spared.

    Raises:
        ValueError: a range or the shape of the draws is wrong.

    Source: Zhong et al. 2017, algorithm 1.
    """
    _check(draws, probability, area, aspect)
    attempts = draws[:, 1:].reshape(len(draws), _ATTEMPTS, 4)
    box_area = height * width * (area[0] + attempts[..., 0] * (area[1] - area[0]))
    low, high = np.log(aspect)
    ratio = np.exp(low + attempts[..., 1] * (high - low))
    box_height = np.rint(np.sqrt(box_area * ratio)).astype(np.int64)
    box_width = np.rint(np.sqrt(box_area / ratio)).astype(np.int64)
    top = (attempts[..., 2] * (height - box_height + 1)).astype(np.int64)
    left = (attempts[..., 3] * (width - box_width + 1)).astype(np.int64)
    fits = (box_height < height) & (box_width < width)
    boxes = np.stack([top, left, box_height, box_width], axis=2)[np.arange(len(draws)), fits.argmax(axis=1)]
    return np.where(((draws[:, 0] < probability) & fits.any(axis=1))[:, None], boxes, 0)


def _check(draws: np.ndarray, probability: float, area: tuple[float, float], aspect: tuple[float, float]) -> None:
    if draws.ndim != 2 or draws.shape[1] != ERASING_DRAWS:
        raise ValueError(f"draws must have the shape (N, {ERASING_DRAWS}), got {draws.shape}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1], got {probability}; 0 turns erasing off")
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area must be (low, high) with 0 < low <= high <= 1, got {tuple(area)}")
    if not 0 < aspect[0] <= aspect[1]:
        raise ValueError(f"aspect must be (low, high) with 0 < low <= high, got {tuple(aspect)}")


def _inputs(images: Tensor, draws: np.ndarray, settings: RandomErasingConfig) -> Tensor:
    return erase(images, draws, settings.probability, settings.area, settings.aspect)


HOOKS = Hooks(num_draws=ERASING_DRAWS, inputs=_inputs)
