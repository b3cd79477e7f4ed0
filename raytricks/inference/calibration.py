"""Whether a model is as sure as it is right: probabilities, the temperature that fits them, the calibration error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import math
from typing import Any

import numpy as np

TEMPERATURE_RANGE = (0.05, 20.0)
NUM_BINS = 15
_BLOCK_ELEMENTS = 1 << 21  # 16 MiB of float64 at a time


@dataclass(frozen=True)
class TemperatureFit:
    """What the logits are to be divided by, and the mean -log p(true) in nats without and with it.

    A temperature at an end of TEMPERATURE_RANGE means that the images set no limit to it: far too few, or all right.
    """

    temperature: float
    nll_before: float
    nll_after: float
    num_images: int


@dataclass(frozen=True)
class CalibrationBin:
    """The images of similar confidence: how many, how sure the model was on average, how often it was right."""

    num_images: int
    mean_confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error, and what a perfectly calibrated model would show on as many images.

    The error is biased upwards, so 0.02 on 1,000 images may be no error at all: below `null_95` it is not told
    from none.
    """

    value: float
    null_mean: float
    null_95: float
    bins: tuple[CalibrationBin, ...]


def log_probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return log softmax(logits / temperature) over the classes, computed in float64.

    Args:
        logits: (N, K), finite; any float type.
        temperature: > 0.

    Returns:
        (N, K) float64.
    """
    scaled = logits.astype(np.float64)
    scaled -= scaled.max(axis=1, keepdims=True)  # the largest exponential is 1, so no sum overflows or is 0
    scaled /= temperature
    scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return scaled


def row_blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Yield slices that cover the rows in order, each small enough for a few float64 copies in memory."""
    step = max(1, _BLOCK_ELEMENTS // max(1, num_columns))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def check_logits(logits: np.ndarray, labels: np.ndarray) -> None:
    """Refuse logits and labels that do not fit together.

    Raises:
        ValueError: shapes other than (N, K) and (N,), no image, labels that are not integers in 0..K-1, logits that
            are not finite.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be (N, K) and labels (N,), got {logits.shape} and {labels.shape}")
    if logits.size == 0:
        raise ValueError(f"logits need at least one image and one class, got {logits.shape}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must lie in 0..{logits.shape[1] - 1}, got {labels.min()}..{labels.max()}")
    num_bad = int((~np.isfinite(logits).all(axis=1)).sum())
    if num_bad:
        raise ValueError(f"logits must be finite; those of {num_bad} of {len(logits)} images are not")


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> TemperatureFit:
    """Find the temperature in TEMPERATURE_RANGE with the least NLL; 1.0 unless another one lowers it.

    A bounded search in log T, where the NLL has a single valley, so it cannot run away or turn negative.

    Args:
        logits: (N, K) float32, of images that trained nothing.
        labels: (N,) integers in 0..K-1.

    Raises:
        ValueError: as `check_logits`.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    from scipy.optimize import minimize_scalar  # a quarter of a second of import

    check_logits(logits, labels)
    bounds = tuple(math.log(end) for end in TEMPERATURE_RANGE)

    def nll_at(log_temperature: float) -> float:
        return mean_nll(logits, labels, math.exp(log_temperature))

    found: Any = minimize_scalar(nll_at, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    before = mean_nll(logits, labels, 1.0)
    # the search stops just short of its bounds
    candidates = {1.0: before, math.exp(found.x): float(found.fun)}
    candidates |= {end: mean_nll(logits, labels, end) for end in TEMPERATURE_RANGE}
    temperature = min(candidates, key=candidates.__getitem__)  # the first of equals: 1.0
    return TemperatureFit(temperature, before, candidates[temperature], len(labels))


def mean_nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Return the mean of -log p(true) over the images in nats; arguments as `fit_temperature`."""
    total = 0.0
    for rows in row_blocks(*logits.shape):
        log_p = log_probabilities(logits[rows], temperature)
        total -= float(log_p[np.arange(len(log_p)), labels[rows]].sum())
    return total / len(labels)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = NUM_BINS) -> float:
    """Return the mean of |accuracy - mean confidence| over equal-mass bins, weighted by their images.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) bool.
        bins: how many at most: images of equal confidence share one.

    Raises:
        ValueError: as `calibration_of`.

    Source: Naeini et al. 2015; equal mass: Roelofs et al. 2022.
    """
    return _error(_bins(confidence, correct, bins))


def calibration_of(
    confidence: np.ndarray, correct: np.ndarray, *, rng: np.random.Generator, num_draws: int = 500
) -> Calibration:
    """Measure the calibration error, and what it is when labels are drawn from the model's own probabilities.

    Such a label is the predicted class with the probability `confidence`: nothing else matters to the error.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) bool.
        num_draws: sets of labels drawn.

    Raises:
        ValueError: no image, different lengths, or a confidence outside 0..1.
    """
    found = _bins(confidence, correct, NUM_BINS)
    null = _null_errors(np.sort(confidence), rng, num_draws)
    return Calibration(_error(found), float(null.mean()), float(np.quantile(null, 0.95)), found)


def _bins(confidence: np.ndarray, correct: np.ndarray, num_bins: int) -> tuple[CalibrationBin, ...]:
    check_confidence(confidence, correct)
    if num_bins < 1:
        raise ValueError(f"bins must be >= 1, got {num_bins}")
    order = np.argsort(confidence, kind="stable")
    starts = _bin_starts(confidence[order], num_bins)
    sizes = np.diff(starts, append=len(order))
    mean_confidence = np.add.reduceat(confidence[order].astype(np.float64), starts) / sizes
    accuracy = np.add.reduceat(correct[order], starts, dtype=np.int64) / sizes
    rows = zip(sizes.tolist(), mean_confidence.tolist(), accuracy.tolist(), strict=True)
    return tuple(CalibrationBin(*row) for row in rows)


def check_confidence(confidence: np.ndarray, correct: np.ndarray) -> None:
    """Refuse confidences and outcomes that do not fit together.

    Raises:
        ValueError: no image, different lengths, or a confidence outside 0..1.
    """
    if confidence.ndim != 1 or correct.shape != confidence.shape or len(confidence) == 0:
        raise ValueError(
            f"confidence and correct must be (N,) of at least one image, got {confidence.shape} and {correct.shape}"
        )
    if not (confidence.min() >= 0 and confidence.max() <= 1):  # NaN too
        raise ValueError(f"confidence must lie in 0..1, got {confidence.min()}..{confidence.max()}")


def _bin_starts(ordered: np.ndarray, num_bins: int) -> np.ndarray:
    """Return where each bin of the ascending values begins: at equal shares, moved up to the next distinct value."""
    num = len(ordered)
    shares = -(-np.arange(1, num_bins) * num // num_bins)  # rounded up, so never 0
    starts = np.searchsorted(ordered, ordered[shares - 1], side="right")
    return np.unique(np.concatenate([[0], starts[starts < num]]))


def _null_errors(ordered: np.ndarray, rng: np.random.Generator, num_draws: int) -> np.ndarray:
    """Return (num_draws,) calibration errors of a model whose ascending confidences are exactly right."""
    starts = _bin_starts(ordered, NUM_BINS)
    expected = np.add.reduceat(ordered.astype(np.float64), starts)
    errors = np.empty(num_draws)
    for rows in row_blocks(num_draws, len(ordered)):
        draws = rng.random((rows.stop - rows.start, len(ordered))) < ordered
        hits = np.add.reduceat(draws, starts, axis=1, dtype=np.int64)
        errors[rows] = np.abs(hits - expected).sum(axis=1) / len(ordered)
    return errors


def _error(bins: tuple[CalibrationBin, ...]) -> float:
    num_images = sum(part.num_images for part in bins)
    return sum(part.num_images * abs(part.accuracy - part.mean_confidence) for part in bins) / num_images
