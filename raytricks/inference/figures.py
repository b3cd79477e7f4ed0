"""Every figure of a classifier on labelled images, with its 95% interval, from the logits alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from raytricks.inference.calibration import Calibration, calibration_of, check_logits, log_probabilities, row_blocks
from raytricks.inference.intervals import UNDEFINED, Estimate, percentile_bounds, wilson

INTERVALS = (
    "95%: Wilson for top1, top5 and the precision and recall of a class; percentile bootstrap over images for "
    "cross_entropy, brier, balanced_accuracy, f1, and the macro and weighted averages (below ~10 images a class, "
    "resamples lose so many classes that the interval of a macro average can lie beside it); none for ece, whose "
    "null_mean and null_95 are the mean and the 95% point under labels drawn from the model's own probabilities"
)
_CHUNK_COUNTS = 1 << 19  # class counts of one chunk of resamples


@dataclass(frozen=True)
class ClassFigures:
    """One class: how many images have it (support), how many are given it (predicted), and its rates."""

    name: str
    support: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return _plain(self)


@dataclass(frozen=True, eq=False)  # arrays have no single equality
class Figures:
    """What a model is worth on N images of K classes; rates in 0..1, cross-entropy in nats.

    top5: None unless K > 5. brier: summed over the classes, halved. Macro averages are over the classes in which
    a rate is defined (num_f1_classes for F1), weighted ones by support. confusion: (K, K) int64, rows true.
    """

    num_images: int
    num_classes: int
    class_names: tuple[str, ...]
    temperature: float
    top1: Estimate
    top5: Estimate | None
    cross_entropy: Estimate
    brier: Estimate
    balanced_accuracy: Estimate
    macro_precision: Estimate
    macro_recall: Estimate
    macro_f1: Estimate
    weighted_precision: Estimate
    weighted_recall: Estimate
    weighted_f1: Estimate
    num_f1_classes: int
    ece: Calibration
    classes: tuple[ClassFigures, ...]
    confusion: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values, with the method of each interval in words."""
        return _plain(self) | {"intervals": INTERVALS}


@dataclass(frozen=True)
class _Scores:
    """What each of the N images says; arrays (N,)."""

    labels: np.ndarray
    predictions: np.ndarray
    true_ranks: np.ndarray  # 0 where the true class comes first
    confidence: np.ndarray
    means: dict[str, np.ndarray]  # the figures that are means over images


@dataclass(frozen=True)
class _Rates:
    """Rates of R samples of images: f1 (R, K), NaN where undefined; averages by name, each (R,)."""

    f1: np.ndarray
    averages: dict[str, np.ndarray]


def figures_of(
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    temperature: float = 1.0,
    seed: int = 0,
    num_resamples: int = 2000,
) -> Figures:
    """Measure a classifier on labelled images; the same arguments give the same figures.

    Of equal logits the class of the lowest index comes first. A class that is never predicted has precision 0; one
    that is neither true nor predicted has no precision and no F1; one without images has no recall.

    Args:
        logits: (N, K) float32, not divided by the temperature.
        labels: (N,) integers in 0..K-1.
        class_names: K names.
        temperature: > 0; divides the logits before every probability. top-1 and top-5 do not depend on it.
        num_resamples: of the percentile bootstrap, >= 1.

    Raises:
        ValueError: an argument outside its range, or that does not fit the others.
    """
    check_logits(logits, labels)
    if len(class_names) != logits.shape[1]:
        raise ValueError(f"class_names must name each of the {logits.shape[1]} classes, got {len(class_names)}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be > 0 and finite, got {temperature}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}")
    scores = _scores(logits, labels.astype(np.int64), temperature)
    num_images, num_classes = logits.shape
    confusion = np.bincount(scores.labels * num_classes + scores.predictions, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    resampled = _bootstrap(scores, num_classes, np.random.default_rng([seed, 0]), num_resamples)
    classes = _class_figures(confusion, class_names, resampled.f1)
    correct = scores.predictions == scores.labels
    top5 = wilson(int((scores.true_ranks < 5).sum()), num_images) if num_classes > 5 else None
    return Figures(
        num_images=num_images,
        num_classes=num_classes,
        class_names=tuple(class_names),
        temperature=float(temperature),
        top1=wilson(int(correct.sum()), num_images),
        top5=top5,
        **_averages(scores, confusion, resampled),
        num_f1_classes=sum(part.f1.value is not None for part in classes),
        ece=calibration_of(scores.confidence, correct, rng=np.random.default_rng([seed, 1])),
        classes=classes,
        confusion=confusion,
    )


def _scores(logits: np.ndarray, labels: np.ndarray, temperature: float) -> _Scores:
    blocks = [_block_scores(logits[rows], labels[rows], temperature) for rows in row_blocks(*logits.shape)]
    predictions, ranks, confidence, nll, brier = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return _Scores(labels, predictions, ranks, confidence, {"cross_entropy": nll, "brier": brier})


def _block_scores(logits: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[np.ndarray, ...]:
    """Return prediction, rank of the true class, confidence, NLL and Brier score of each image."""
    rows = np.arange(len(labels))
    true_logits = logits[rows, labels][:, None]
    before = np.arange(logits.shape[1]) < labels[:, None]
    ranks = ((logits > true_logits) | ((logits == true_logits) & before)).sum(axis=1)
    predictions = logits.argmax(axis=1)
    log_p = log_probabilities(logits, temperature)
    nll = 0.0 - log_p[rows, labels]  # 0.0 -, for -0.0 is printed
    errors = np.exp(log_p)
    confidence = errors[rows, predictions]  # a copy, before the true class is taken off
    errors[rows, labels] -= 1
    return predictions, ranks, confidence, nll, np.square(errors).sum(axis=1) / 2


def _bootstrap(scores: _Scores, num_classes: int, rng: np.random.Generator, num_resamples: int) -> _Rates:
    """Draw the images again with replacement, num_resamples times, and rate each draw."""
    chunk = max(1, _CHUNK_COUNTS // num_classes)
    parts = [
        _rates_of_draws(scores, num_classes, rng, min(chunk, num_resamples - start))
        for start in range(0, num_resamples, chunk)
    ]
    averages = {name: np.concatenate([part.averages[name] for part in parts]) for name in parts[0].averages}
    return _Rates(np.concatenate([part.f1 for part in parts]), averages)


def _rates_of_draws(scores: _Scores, num_classes: int, rng: np.random.Generator, num_draws: int) -> _Rates:
    num_images = len(scores.labels)
    hit_class = np.where(scores.predictions == scores.labels, scores.labels, num_classes)  # one more for the misses
    hits, support, predicted = (np.empty((num_draws, num_classes), dtype=np.int64) for _ in range(3))
    means = {name: np.empty(num_draws) for name in scores.means}
    for draw in range(num_draws):
        images = rng.integers(num_images, size=num_images)
        hits[draw] = np.bincount(hit_class[images], minlength=num_classes + 1)[:num_classes]
        support[draw] = np.bincount(scores.labels[images], minlength=num_classes)
        predicted[draw] = np.bincount(scores.predictions[images], minlength=num_classes)
        for name, values in scores.means.items():
            means[name][draw] = values[images].mean()
    rates = _rates(hits, support, predicted)
    return _Rates(rates.f1, rates.averages | means)


def _rates(hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> _Rates:
    """Rate R samples from their counts, each (R, K): right images of a class, images of it, images given it."""
    recall = _ratio(hits, support, support > 0)
    precision = _ratio(hits, np.maximum(predicted, 1), support + predicted > 0)
    f1 = _ratio(2 * hits, support + predicted, support + predicted > 0)
    averages = {"balanced_accuracy": _macro(recall)}
    for name, rate in (("precision", precision), ("recall", recall), ("f1", f1)):
        averages[f"macro_{name}"] = _macro(rate)
        averages[f"weighted_{name}"] = (np.nan_to_num(rate) * support).sum(axis=1) / support.sum(axis=1)
    return _Rates(f1, averages)


def _ratio(numerator: np.ndarray, denominator: np.ndarray, defined: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=defined)


def _macro(rate: np.ndarray) -> np.ndarray:
    """Return the mean over the classes in which the rate is defined; with an image there is always one."""
    return np.mean(rate, axis=1, where=~np.isnan(rate))


def _averages(scores: _Scores, confusion: np.ndarray, resampled: _Rates) -> dict[str, Any]:
    rates = _rates(np.diag(confusion)[None], confusion.sum(axis=1)[None], confusion.sum(axis=0)[None])
    found = {name: float(values[0]) for name, values in rates.averages.items()}
    found |= {name: float(values.mean()) for name, values in scores.means.items()}
    bounds = {name: percentile_bounds(values) for name, values in resampled.averages.items()}
    return {name: Estimate(value, *map(float, bounds[name])) for name, value in found.items()}


def _class_figures(confusion: np.ndarray, names: Sequence[str], resampled_f1: np.ndarray) -> tuple[ClassFigures, ...]:
    low, high = (bound.tolist() for bound in percentile_bounds(resampled_f1))
    counts = zip(np.diag(confusion).tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist(), strict=True)
    classes = []
    for index, (hits, support, predicted) in enumerate(counts):
        f1, precision = UNDEFINED, wilson(hits, predicted)
        if support + predicted > 0:
            f1 = Estimate(2 * hits / (support + predicted), low[index], high[index])
        if support > 0 and predicted == 0:
            precision = Estimate(0.0, None, None)  # by definition; nothing was tried, so no interval
        classes.append(ClassFigures(names[index], support, predicted, precision, wilson(hits, support), f1))
    return tuple(classes)


def _plain(value: Any) -> Any:
    """Return dataclasses, tuples and arrays as JSON values."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
