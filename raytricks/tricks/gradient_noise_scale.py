"""Gradient noise scale: the batch up to which more images a step still help in proportion.

Two gradients of the same weights, of a small and of a large batch, tell the true gradient from
its noise. Beyond the noise scale a larger batch averages away little more, and a learning rate
scaled with it overshoots: linear scaling is safe up to about this batch.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from raytricks.parts.hooks import Hooks


def squared_gradient_norm(loss: torch.Tensor, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """Return |g|^2 of a loss, leaving its graph and every `.grad` as they are.

    Args:
        loss: 0-dimensional, of a graph that a later backward pass still needs.
        parameters: those that the loss does not depend on count as 0.

    Returns:
        A 0-dimensional tensor on the loss's device; does not wait for it.
    """
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return nn.utils.get_total_norm([g for g in gradients if g is not None]).square()


def noise_scale(small_square: float, large_square: float, small_inverse: float, large_inverse: float) -> float | None:
    """Estimate B_simple = tr(Sigma) / |G|^2 from squared gradient norms, better averaged over many steps.

    E|g_b|^2 = |G|^2 + tr(Sigma)/b, for two batch sizes: two equations.

    Args:
        small_square, large_square: mean |g_b|^2 of the small and |g_B|^2 of the large batch.
        small_inverse, large_inverse: mean of 1/b and of 1/B.

    Returns:
        Images; None when the noise hides |G|^2, so that its estimate is not positive.

    Raises:
        ValueError: the small batch is not smaller.

    Source: McCandlish et al. 2018, appendix A.1.
    """
    if not small_inverse > large_inverse > 0:
        raise ValueError(f"1/b must exceed 1/B > 0, got {small_inverse} and {large_inverse}")
    noise = (small_square - large_square) / (small_inverse - large_inverse)
    true_square = large_square - noise * large_inverse
    if true_square <= 0:
        return None
    return max(noise, 0.0) / true_square


MEASURED = ("small_square", "small_inverse")
"""|g_b|^2 and 1/b of the first half of a micro-batch; 0 in the steps that are not measured."""


def _measure(
    losses: torch.Tensor, parameters: list[nn.Parameter], scaler: torch.amp.GradScaler, step: int, settings: int
) -> torch.Tensor:
    num_images = len(losses) // 2
    if step % settings or num_images == 0:
        return torch.zeros(2, device=losses.device)
    square = squared_gradient_norm(scaler.scale(losses[:num_images].mean()), parameters)
    unit = scaler.scale(torch.ones_like(square))  # the loss scale, without waiting for it
    return torch.stack([square / unit.square(), torch.full_like(square, 1 / num_images)]).float()


def _step_totals(row: Mapping[str, float]) -> dict[str, float]:
    if not row["small_inverse"]:
        return {}
    return {
        "noise_steps": 1,
        "noise_small_square": row["small_square"],
        "noise_small_inverse": row["small_inverse"],
        "noise_large_square": row["grad_norm"] ** 2,
    }


def _summary(totals: Mapping[str, float], global_batch_size: int) -> dict[str, float | None]:
    steps = totals.get("noise_steps", 0)
    if not steps:
        return {}
    names = ("small_square", "small_inverse", "large_square")
    small_square, small_inverse, large_square = (totals[f"noise_{name}"] / steps for name in names)
    return {"noise_scale": noise_scale(small_square, large_square, small_inverse, 1 / global_batch_size)}


HOOKS = Hooks(measured=MEASURED, measure=_measure, step_totals=_step_totals, summary=_summary)
