"""Figures of an interval of steps and of an epoch, from the sums of their steps."""

import math

from raytricks.training.step_log import SUMMED
from raytricks.tricks.gradient_noise_scale import noise_scale


def interval_summary(sums: dict[str, float], num_steps: int, global_batch_size: int) -> dict[str, float]:
    """Return the figures of some steps.

    Args:
        sums: keys of TOTALS.
    """
    images = sums["images"]
    means = (mean(sums[name], images) for name in SUMMED)
    return {
        **dict(zip(("objective", "cross_entropy", "top1"), means, strict=True)),
        "skipped_steps": int(sums["skipped"]),
        "images_per_second": num_steps * global_batch_size / sums["seconds"],
    }


def epoch_summary(totals: dict[str, float], global_batch_size: int) -> dict[str, float | None]:
    """Return the figures of an epoch's training.

    Args:
        totals: keys of TOTALS.
    """
    images, seconds = totals["images"], totals["seconds"]
    images_seen = images + totals["skipped"] * global_batch_size
    summary: dict[str, float | None] = {
        "train_objective": mean(totals["objective"], images),
        "train_cross_entropy": mean(totals["cross_entropy"], images),
        "train_top1": mean(totals["correct"], images),
        "skipped_steps": int(totals["skipped"]),
        "images_per_second": images_seen / seconds,
        "train_s": seconds,
        "data_wait_s": totals["data_wait_s"],
    }
    if totals["noise_steps"]:
        summary["noise_scale"] = _noise_scale(totals, global_batch_size)
    return summary


def mean(total: float, count: float) -> float:
    """Return NaN where there is nothing to take the mean of: fp16 skipped every step."""
    return total / count if count else math.nan


def _noise_scale(totals: dict[str, float], global_batch_size: int) -> float | None:
    small_square, small_inverse, large_square = (
        totals[f"noise_{name}"] / totals["noise_steps"] for name in ("small_square", "small_inverse", "large_square")
    )
    return noise_scale(small_square, large_square, small_inverse, 1 / global_batch_size)
