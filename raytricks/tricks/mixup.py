"""Mixup: train on blends of two images.

Sample i is blended with sample i - 1 of the same global batch (the first with the last), the
rolling of torchvision's v2.MixUp. So a worker that holds a contiguous slice of the batch needs one
more image, its left neighbour, and the result does not depend on the number of workers. The batch
must be shuffled; a batch of one blends with itself.
"""

from collections.abc import Callable

import numpy as np
import torch

MIXUP_STREAM = 0x6D697875  # "mixu": keeps these draws apart from others seeded by (seed, step)


def draw_mix_weight(alpha: float, seed: int, step: int) -> float:
    """Draw the weight of a step's own images, equal on every worker and after a resume.

    Args:
        alpha: of Beta(alpha, alpha), >= 0 (paper: 0.2); 0: off.
        seed: the run's seed, >= 0.
        step: number of the update, >= 0.

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
    return float(np.random.default_rng((seed, step, MIXUP_STREAM)).beta(alpha, alpha))


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


def mixed_loss(
    loss_per_sample: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
    neighbour_labels: torch.Tensor,
    mix_weight: float,
) -> torch.Tensor:
    """Return the loss of each sample to its mixed label.

    Cross-entropy is linear in the target, so mixing two losses equals the loss to the mixed target.
    Smoothing belongs inside `loss_per_sample`, once: it commutes with mixing.

    Args:
        loss_per_sample: labels (N,) -> losses (N,).
        labels: (N,) of the images themselves.
        neighbour_labels: (N,) of the images they were mixed with.
        mix_weight: the one the images were mixed with, in [0, 1].

    Raises:
        ValueError: mix_weight is out of range.

    Source: He et al. 2018, section 5.4.
    """
    _check_mix_weight(mix_weight)
    if mix_weight == 1:
        return loss_per_sample(labels)
    return mix_weight * loss_per_sample(labels) + (1 - mix_weight) * loss_per_sample(neighbour_labels)


def _check_mix_weight(mix_weight: float) -> None:
    if not 0 <= mix_weight <= 1:
        raise ValueError(f"mix_weight must be in [0, 1], got {mix_weight}")
