"""Gradient clipping by the norm of the whole gradient; not in the paper, off by default.

Both functions work on true gradients: after the accumulation, the all-reduce and the scaler's
`unscale_`. Neither waits for the device.
"""

from collections.abc import Iterable

import torch
from torch import nn

from raytricks.parts.hooks import Hooks


def global_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Return the 2-norm of all gradients taken as one vector.

    Args:
        parameters: those without a gradient are left out.

    Returns:
        A 0-dimensional tensor on the gradients' device; 0 without gradients.
    """
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip_by_norm(parameters: Iterable[nn.Parameter], norm: torch.Tensor, clip_norm: float) -> None:
    """Scale the gradients, in place, so that their norm is at most `clip_norm`.

    Args:
        parameters: the ones that `norm` was taken of.
        norm: from `global_norm`; check it first, a non-finite norm makes every gradient NaN or 0.
        clip_norm: > 0.

    Raises:
        ValueError: clip_norm is not positive.

    Source: Pascanu et al. 2013, algorithm 1.
    """
    if not clip_norm > 0:
        raise ValueError(f"clip_norm must be > 0, got {clip_norm}")
    nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)


def _gradients(parameters: list[nn.Parameter], norm: torch.Tensor, settings: float) -> None:
    clip_by_norm(parameters, norm, settings)


HOOKS = Hooks(gradients=_gradients)
