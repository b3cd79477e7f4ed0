"""Cosine, step and constant decay: how the learning rate falls after the warmup.

Every function takes the 1-based number of the update and looks at the updates already made,
step - 1. So with a warmup of m, updates m and m + 1 both use the peak (the rise ends, the fall
begins), the last update still moves the weights, and the value after it, at total + 1, is the
end of the curve. Counting from the update itself would spend the last one on a learning rate of 0.
"""

from collections.abc import Sequence
import math

from raytricks.parts.hooks import Hooks, LrPoint
from raytricks.parts.tricks import DecayConfig


def cosine_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return (1 + cos(pi t/T))/2, with t the updates made since the warmup, T = total - warmup.

    Args:
        step: number of the update, >= 1.
        warmup_steps: 0 <= warmup_steps <= total_steps.
        total_steps: updates of the whole run, >= 1.

    Returns:
        1 up to update warmup_steps + 1, exactly 0 from total_steps + 1 on: it never climbs again.

    Raises:
        ValueError: an argument is out of range.

    Source: He et al. 2018, section 5.1; Loshchilov & Hutter 2016, without restarts.
    """
    _check(step, warmup_steps, total_steps)
    decay_steps = total_steps - warmup_steps
    decayed_steps = min(max(step - 1 - warmup_steps, 0), decay_steps)
    if decayed_steps == 0:
        return 1.0
    return (1 + math.cos(math.pi * decayed_steps / decay_steps)) / 2


def step_factor(step: int, total_steps: int, milestones: Sequence[float], factor: float) -> float:
    """Return `factor` to the power of the milestones passed.

    Args:
        step: number of the update, >= 1.
        total_steps: updates of the whole run, warmup included, >= 1.
        milestones: parts of total_steps in [0, 1); a milestone is passed when that part of all
            updates has been made (0.25 of 120 epochs: from the first update of the 31st on).
        factor: in (0, 1).

    Raises:
        ValueError: an argument is out of range.

    Source: He et al. 2018, section 5.1: 0.1 after epochs 30, 60 and 90 of 120.
    """
    _check(step, 0, total_steps)
    if not 0 < factor < 1:
        raise ValueError(f"factor must be in (0, 1), got {factor}")
    for milestone in milestones:
        if not 0 <= milestone < 1:
            raise ValueError(f"milestones must be in [0, 1), got {milestone}")
    # 0.07 * 100 is 7.000000000000001: without the tolerance that milestone comes an update late.
    passed = sum(step - 1 >= milestone * total_steps - 1e-6 for milestone in milestones)
    return factor**passed


def _check(step: int, warmup_steps: int, total_steps: int) -> None:
    if step < 1:
        raise ValueError(f"step must be >= 1, the number of the first update, got {step}")
    if total_steps < 1:
        raise ValueError(f"total_steps must be >= 1, got {total_steps}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warmup_steps must be in [0, total_steps = {total_steps}], got {warmup_steps}")


def _lr_factor(point: LrPoint, settings: DecayConfig) -> float:
    if settings.kind == "step":
        return step_factor(point.step, point.total_steps, settings.milestones, settings.factor)
    return cosine_factor(point.step, point.warmup_steps, point.total_steps) if settings.kind == "cosine" else 1.0


HOOKS = Hooks(lr_factor=_lr_factor)
