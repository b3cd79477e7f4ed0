"""The learning rate of every update, as a function of its number alone: a resume needs no state."""

from collections.abc import Sequence
from typing import Literal

from raytricks.tricks.decay import cosine_factor, step_factor
from raytricks.tricks.warmup import warmup_factor


def learning_rate(
    step: int,
    *,
    peak_lr: float,
    warmup_steps: int,
    total_steps: int,
    kind: Literal["cosine", "step", "constant"] = "cosine",
    milestones: Sequence[float] = (0.25, 0.5, 0.75),
    factor: float = 0.1,
) -> float:
    """Return the learning rate that an update uses: peak * warmup * decay.

    Args:
        step: number of the update, 1 to total_steps; later ones keep the end of the curve.
        peak_lr: learning rate between warmup and decay (see `linear_scaling`), > 0.
        warmup_steps: 0 <= warmup_steps <= total_steps.
        total_steps: updates of the whole run, >= 1.
        kind: how it falls.
        milestones: step only; rising parts of total_steps in [0, 1).
        factor: step only; in (0, 1).

    Raises:
        ValueError: an argument is out of range.

    Source: He et al. 2018, sections 3.1 and 5.1. `decay` says how the updates are counted.
    """
    if not peak_lr > 0:
        raise ValueError(f"peak_lr must be > 0, got {peak_lr}")
    warmed_lr = peak_lr * warmup_factor(step, warmup_steps)
    if kind == "cosine":
        return warmed_lr * cosine_factor(step, warmup_steps, total_steps)
    if kind == "step":
        return warmed_lr * step_factor(step, total_steps, milestones, factor)
    if kind == "constant":
        return warmed_lr
    raise ValueError(f"kind must be cosine, step or constant, got {kind!r}")
