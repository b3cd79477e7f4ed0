"""Which of two models is right more often on the same images: McNemar's exact test and the difference."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from raytricks.inference.intervals import Z_95, Estimate


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images; only the images that one of them gets right tell them apart.

    difference: accuracy of A minus that of B, parts of 1. p_value: of McNemar's exact test that neither is better.
    """

    num_images: int
    accuracy_a: float
    accuracy_b: float
    num_only_a_correct: int
    num_only_b_correct: int
    difference: Estimate
    p_value: float


def compare_models(correct_a: np.ndarray, correct_b: np.ndarray) -> Comparison:
    """Compare the accuracy of two models on the same images.

    Args:
        correct_a: (N,) bool, whether model A is right.
        correct_b: (N,) bool, of the same images in the same order.

    Raises:
        ValueError: no image, or different lengths.

    Source: McNemar 1947, exact; interval: Agresti and Min 2005, half an image added to each of the four cells.
    """
    if correct_a.ndim != 1 or correct_a.shape != correct_b.shape or len(correct_a) == 0:
        raise ValueError(
            f"correct_a and correct_b must be (N,) of the same images, got {correct_a.shape} and {correct_b.shape}"
        )
    right_a, right_b = correct_a.astype(bool), correct_b.astype(bool)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Comparison(
        num_images=len(right_a),
        accuracy_a=float(right_a.mean()),
        accuracy_b=float(right_b.mean()),
        num_only_a_correct=only_a,
        num_only_b_correct=only_b,
        difference=_difference(only_a, only_b, len(right_a)),
        p_value=mcnemar_p(only_a, only_b),
    )


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value of McNemar's test from the images that just one model gets right."""
    from scipy.special import bdtr  # a quarter of a second of import

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0


def _difference(only_a: int, only_b: int, num_images: int) -> Estimate:
    padded = num_images + 2
    centre = (only_a - only_b) / padded
    margin = Z_95 * math.sqrt((only_a + only_b + 1) / padded - centre**2) / math.sqrt(padded)
    return Estimate((only_a - only_b) / num_images, max(-1.0, centre - margin), min(1.0, centre + margin))
