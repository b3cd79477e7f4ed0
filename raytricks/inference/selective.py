"""From which confidence on a model may answer so that a promised share of its answers is right, else "unsure"."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from raytricks.inference.calibration import check_confidence
from raytricks.inference.intervals import check_share, clopper_pearson_lower

# Fixed before any label is seen, which the promise rests on. Even in log-odds, so as fine at 0.999 as at 0.6.
THRESHOLDS = 1 / (1 + np.exp(-np.arange(160, -101, -1) / 10))


@dataclass(frozen=True)
class Guarantee:
    """Accept an image where confidence >= threshold, both float64.

    Counts are of the images that the threshold was chosen on. coverage: the accepted share of them. lower_bound:
    Clopper-Pearson's, of the precision.
    """

    threshold: float
    num_accepted: int
    num_errors: int
    coverage: float
    lower_bound: float


def threshold_for_precision(
    confidence: np.ndarray, correct: np.ndarray, precision: float, confidence_level: float = 0.95
) -> Guarantee | None:
    """Find the lowest threshold whose accepted images keep the promised precision; None if these show none.

    Tests THRESHOLDS from high to low, from the first that accepts enough images to pass at all, as long as the
    lower bound of the precision reaches the promise. Since the order is fixed and the first failure ends it, a
    threshold below the promise is returned in at most 1 - confidence_level of all samples. Taking the largest
    coverage that looks precise enough breaks the promise about every second time.

    Args:
        confidence: (N,) float64 probability of the predicted class, in 0..1, of images that trained nothing, chose no
            epoch and fitted no temperature.
        correct: (N,) bool.
        precision: the promised share of right answers among the accepted, in (0, 1).
        confidence_level: in (0, 1).

    Raises:
        ValueError: an argument outside its range, no image, or different lengths.

    Source: fixed-sequence testing, as in Angelopoulos et al. 2021, Learn then Test.
    """
    check_confidence(confidence, correct)
    least = least_num_accepted(precision, confidence_level)
    order = np.argsort(-confidence, kind="stable")
    num_errors = np.cumsum(~correct[order].astype(bool))
    num_accepted = np.searchsorted(-confidence[order], -THRESHOLDS, side="right")
    best = None
    for threshold, accepted in zip(THRESHOLDS.tolist(), num_accepted.tolist(), strict=True):
        if accepted < least:
            continue
        errors = int(num_errors[accepted - 1])
        lower_bound = clopper_pearson_lower(accepted - errors, accepted, confidence_level)
        if lower_bound < precision:
            break
        best = Guarantee(threshold, accepted, errors, accepted / len(confidence), lower_bound)
        if accepted == len(confidence):  # a lower threshold accepts the same images
            break
    return best


def least_num_accepted(precision: float, confidence_level: float = 0.95) -> int:
    """Return how many accepted images without a single error show a precision; 299 for 0.99.

    Args:
        precision: in (0, 1).
        confidence_level: in (0, 1).

    Raises:
        ValueError: an argument outside its range.
    """
    check_share("precision", precision)
    check_share("confidence_level", confidence_level)
    return math.ceil(math.log(1 - confidence_level) / math.log(precision))
