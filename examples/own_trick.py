"""A trick of your own: a row that names its settings, and functions for the slots that it needs.

    raytricks train examples/own_trick.yaml
    raytricks parts check examples/own_trick.py:SHARPEN

`pixels` is one of the slots of raytricks.parts.hooks; a function names what it needs of what its slot offers. The
draws come from a stream that depends on the seed, the epoch, the image and the part's name alone, so a resume, more
workers or another trick do not change them.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
import torch
from torch import Tensor
import torch.nn.functional as F

from raytricks.parts import Hooks, Part, Section


class SharpenSettings(Section):
    """Sharpening."""

    amount: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Largest part of the difference to the blurred image that is added. 0: off."""


def sharpen(images: Tensor, draws: np.ndarray, settings: SharpenSettings) -> Tensor:
    """Add a random part of what blurring takes away: (n, C, S, S) pixels in 0..255."""
    pixels = images.float()
    blurred = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    strength = torch.from_numpy(draws[:, 0]).to(pixels)[:, None, None, None] * settings.amount
    return (pixels + (pixels - blurred) * strength).clamp(0, 255)


SHARPEN = Part(
    kind="trick",
    name="sharpen",
    title="sharpening {}",
    source="-",
    formula="x + a u (x - blur(x)), u uniform in [0, 1) an image",
    settings=SharpenSettings,
    code=Hooks(num_draws=1, pixels=sharpen),
    on={"amount": 0.5},
    off={"amount": 0.0},
    shown="amount",
    changeable=("*",),
    changes_images=True,
)
