"""Gradual warmup: the learning rate rises linearly, update by update."""

from raytricks.parts.hooks import Hooks, LrPoint


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Return the part of the peak learning rate that an update uses.

    Args:
        step: number of the update, from 1; the first uses 1/warmup_steps of the peak, not 0.
        warmup_steps: m >= 0; 0: no warmup.

    Returns:
        step/m up to update m, which uses the peak, and 1 from there on.

    Raises:
        ValueError: an argument is out of range.

    Source: He et al. 2018, section 3.1; Goyal et al. 2017, section 2.2.
    """
    if step < 1:
        raise ValueError(f"step must be >= 1, the number of the first update, got {step}")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must be >= 0, got {warmup_steps}")
    return 1.0 if step >= warmup_steps else step / warmup_steps


def _lr_factor(point: LrPoint) -> float:
    return warmup_factor(point.step, point.warmup_steps)


HOOKS = Hooks(lr_factor=_lr_factor)
