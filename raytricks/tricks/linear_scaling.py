"""Linear scaling: the peak learning rate follows the global batch size."""

import math
from typing import Literal

from raytricks.parts.hooks import Hooks, LrPoint

BASE_BATCH_SIZE = 256


def peak_learning_rate(
    base_lr: float, global_batch_size: int, rule: Literal["linear", "sqrt", "none"] = "linear"
) -> float:
    """Return the learning rate that the schedule reaches after the warmup.

    Args:
        base_lr: learning rate at a global batch of 256, > 0.
        global_batch_size: b >= 1, images per update over all workers and accumulation steps.
        rule: linear: base_lr * b/256; sqrt: base_lr * sqrt(b/256); none: base_lr.

    Raises:
        ValueError: an argument is out of range.

    Source: He et al. 2018, section 3.1; sqrt: Krizhevsky 2014 (not in the paper).
    """
    if not base_lr > 0:
        raise ValueError(f"base_lr must be > 0, got {base_lr}")
    if global_batch_size < 1:
        raise ValueError(f"global_batch_size must be >= 1, got {global_batch_size}")
    ratio = global_batch_size / BASE_BATCH_SIZE
    factors = {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}
    if rule not in factors:
        raise ValueError(f"rule must be one of {', '.join(factors)}, got {rule!r}")
    return base_lr * factors[rule]


def _lr_factor(point: LrPoint, settings: Literal["linear", "sqrt", "none"]) -> float:
    return peak_learning_rate(1.0, point.global_batch_size, settings)


HOOKS = Hooks(lr_factor=_lr_factor)
