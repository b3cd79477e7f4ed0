"""Mixup: train on blends of two images.

Sample i is blended with sample i - 1 of the same global batch (the first with the last), the
rolling of torchvision's v2.MixUp. So a worker that holds a contiguous slice of the batch needs one
more image, its left neighbour, and the result does not depend on the number of workers. The batch
must be shuffled; a batch of one blends with itself.
"""

from functools import partial

import numpy as np
import torch

from raytricks.parts.hooks import Blend, Hooks
from raytricks.parts.tricks import MixupConfig


def draw_mix_weight(alpha: float, rng: np.random.Generator) -> float:
    """Draw the weight of a step's own images, equal on every worker and after a resume.

    Args:
        alpha: of Beta(alpha, alpha), >= 0 (paper: 0.2); 0: off.
        rng: of the step.

    Returns:
        mix_weight in [0, 1]; 1.0 when off.

    Raises:
        ValueError: alpha is negative.

    Source: He et al. 2018, section 5.4; one draw a batch as in Zhang et al. 2018.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be >= 0, got {alpha}; 0 turns mixup off")
    if alpha == 0:
        return 1.0
    return float(rng.beta(alpha, alpha))


def mix(inputs: torch.Tensor, neighbours: torch.Tensor, mix_weight: float) -> torch.Tensor:
    """Return mix_weight * inputs + (1 - mix_weight) * neighbours.

    Args:
        inputs: (N, ...) float.
        neighbours: same shape; neighbours[i] is the image before inputs[i] in the global batch.
        mix_weight: in [0, 1]; 1 returns `inputs` itself.

    Raises:
        ValueError: the shapes differ, the images are integers, or mix_weight is out of range.

    Source: He et al. 2018, section 5.4.
    """
    _check_mix_weight(mix_weight)
    if inputs.shape != neighbours.shape:
        raise ValueError(f"neighbours must have the shape {tuple(inputs.shape)}, got {tuple(neighbours.shape)}")
    if not inputs.is_floating_point():
        raise ValueError(f"inputs must be floats, got {inputs.dtype}; normalise the images before mixing")
    if mix_weight == 1:
        return inputs
    return inputs * mix_weight + neighbours * (1 - mix_weight)


def _check_mix_weight(mix_weight: float) -> None:
    if not 0 <= mix_weight <= 1:
        raise ValueError(f"mix_weight must be in [0, 1], got {mix_weight}")


def _blend(rng: np.random.Generator, epochs_left: int, settings: MixupConfig) -> Blend | None:
    if epochs_left <= settings.off_epochs:
        return None
    mix_weight = draw_mix_weight(settings.alpha, rng)
    return Blend(mix_weight, partial(mix, mix_weight=mix_weight))


HOOKS = Hooks(blend=_blend)
