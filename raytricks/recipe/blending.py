"""Which two images a step blends, and how: mixup, CutMix, either of them by chance, or none."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from raytricks.config.schema import ExperimentConfig
from raytricks.tricks.cutmix import Rectangle, draw_rectangle, kept_part, paste
from raytricks.tricks.mixup import draw_mix_weight, mix

_CHOICE_STREAM = 0x636F696E  # keeps this draw apart from others seeded by (seed, step)


@dataclass(frozen=True)
class Blend:
    """How a step blends each image with its left neighbour in the global batch.

    Attributes:
        mix_weight: weight of the image's own label, in [0, 1].
        rectangle: pasted from the neighbour (CutMix); None: the whole images are mixed.
    """

    mix_weight: float
    rectangle: Rectangle | None = None

    def apply(self, inputs: Tensor, neighbours: Tensor) -> Tensor:
        """Return the blended (N, C, H, W) images."""
        if self.rectangle is not None:
            return paste(inputs, neighbours, self.rectangle)
        return mix(inputs, neighbours, self.mix_weight)


def blends_images(config: ExperimentConfig) -> bool:
    """Return whether any step blends images, so that workers need the left neighbour too."""
    return config.tricks.mixup.alpha > 0 or config.tricks.cutmix.alpha > 0


def draw_blend(config: ExperimentConfig, step: int, epoch: int, side: int) -> Blend | None:
    """Draw a step's blend from (seed, step): equal on every worker and after a resume.

    Args:
        step: number of the update, counted from 1.
        epoch: counted from 0; in their last `off_epochs` mixup and CutMix are off.
        side: of the square images, pixels.
    """
    mixup, cutmix = config.tricks.mixup, config.tricks.cutmix
    epochs_left = config.recipe.epochs - epoch
    has_mixup = mixup.alpha > 0 and epochs_left > mixup.off_epochs
    has_cutmix = cutmix.alpha > 0 and epochs_left > cutmix.off_epochs
    if has_mixup and has_cutmix:
        has_mixup = bool(np.random.default_rng((config.seed, step, _CHOICE_STREAM)).random() < 0.5)
        has_cutmix = not has_mixup
    if has_mixup:
        return Blend(draw_mix_weight(mixup.alpha, config.seed, step))
    if has_cutmix:
        rectangle = draw_rectangle(cutmix.alpha, config.seed, step, side, side)
        return Blend(kept_part(rectangle, side, side), rectangle)
    return None
