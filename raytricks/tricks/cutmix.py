"""CutMix: paste a rectangle of the neighbour image, and share the label by area.

The neighbour is the image before in the global batch, as for mixup, and the rectangle is the same
for the whole batch, as in torchvision's v2.CutMix: so the result does not depend on the number of
workers. Not in the paper.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from raytricks.parts.hooks import Blend, Hooks
from raytricks.parts.tricks import CutMixConfig


@dataclass(frozen=True)
class Rectangle:
    """Pixels [top, bottom) x [left, right) of an image; empty when nothing is pasted."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def num_pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)


def draw_rectangle(alpha: float, rng: np.random.Generator, height: int, width: int) -> Rectangle:
    """Draw a step's rectangle, equal on every worker and after a resume.

    Its centre is uniform over the image and its sides are sqrt(1 - w) of the image's, with
    w ~ Beta(alpha, alpha); what reaches beyond the border is cut off.

    Args:
        alpha: of the Beta distribution, >= 0 (Yun et al.: 1); 0: off, an empty rectangle.
        rng: of the step.
        height, width: of the images, pixels.

    Raises:
        ValueError: alpha is negative.

    Source: Yun et al. 2019, section 3.1 and appendix A.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be >= 0, got {alpha}; 0 turns CutMix off")
    if alpha == 0:
        return Rectangle(0, 0, 0, 0)
    half = 0.5 * np.sqrt(1 - rng.beta(alpha, alpha))
    row, column = rng.integers(height), rng.integers(width)
    return centred_rectangle(int(row), int(column), int(half * height), int(half * width), height, width)


def centred_rectangle(row: int, column: int, half_height: int, half_width: int, height: int, width: int) -> Rectangle:
    """Return the rectangle around a pixel, cut off at the border of the image."""
    return Rectangle(
        top=max(row - half_height, 0),
        left=max(column - half_width, 0),
        bottom=min(row + half_height, height),
        right=min(column + half_width, width),
    )


def paste(inputs: torch.Tensor, neighbours: torch.Tensor, rectangle: Rectangle) -> torch.Tensor:
    """Return the inputs with the rectangle of their neighbours.

    Args:
        inputs: (N, C, H, W) float.
        neighbours: same shape; neighbours[i] is the image before inputs[i] in the global batch.
        rectangle: inside the image; an empty one returns `inputs` itself.

    Raises:
        ValueError: the shapes differ.

    Source: Yun et al. 2019, equation 1.
    """
    if inputs.shape != neighbours.shape:
        raise ValueError(f"neighbours must have the shape {tuple(inputs.shape)}, got {tuple(neighbours.shape)}")
    if rectangle.num_pixels == 0:
        return inputs
    rows, columns = slice(rectangle.top, rectangle.bottom), slice(rectangle.left, rectangle.right)
    pasted = inputs.clone()
    pasted[..., rows, columns] = neighbours[..., rows, columns]
    return pasted


def kept_part(rectangle: Rectangle, height: int, width: int) -> float:
    """Return the part of each image that is its own: the weight of its own label, in [0, 1]."""
    return 1 - rectangle.num_pixels / (height * width)


def _blend(rng: np.random.Generator, side: int, epochs_left: int, settings: CutMixConfig) -> Blend | None:
    if epochs_left <= settings.off_epochs:
        return None
    rectangle = draw_rectangle(settings.alpha, rng, side, side)
    return Blend(kept_part(rectangle, side, side), partial(paste, rectangle=rectangle))


HOOKS = Hooks(blend=_blend)
