"""The threshold that keeps a promised precision, and how often it breaks it."""

import numpy as np
import pytest

from raytricks.inference.intervals import clopper_pearson_lower
from raytricks.inference.selective import THRESHOLDS, least_num_accepted, threshold_for_precision

PROMISE = 0.99


def draw(rng, num_images):
    """Return confidences of an overconfident model that is right 89 times of 100, and whether it is right."""
    confidence = 1 - 0.6 * rng.random(num_images) ** 4
    return confidence, rng.random(num_images) < 1.005 - 0.95 * (1 - confidence)


def precisions(thresholds):
    """Return the true precision above each threshold, from many images."""
    confidence, correct = draw(np.random.default_rng(99), 2_000_000)
    order = np.argsort(-confidence)
    accepted = np.searchsorted(-confidence[order], -np.asarray(thresholds), side="right")
    return np.cumsum(correct[order])[np.maximum(accepted - 1, 0)] / np.maximum(accepted, 1)


def naive_threshold(confidence, correct):
    """Return the lowest threshold whose accepted images happen to keep the promise."""
    order = np.argsort(-confidence)
    precise = np.cumsum(correct[order]) / np.arange(1, len(order) + 1) >= PROMISE
    return confidence[order][precise.nonzero()[0][-1]] if precise.any() else None


def test_least_num_accepted_of_99_percent_is_299():
    assert least_num_accepted(0.99) == 299


@pytest.mark.parametrize("precision", [0.05, 0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_least_num_accepted_is_the_first_that_passes(precision, level):
    least = least_num_accepted(precision, level)
    assert clopper_pearson_lower(least, least, level) >= precision
    assert least == 1 or clopper_pearson_lower(least - 1, least - 1, level) < precision


def test_thresholds_descend_from_almost_1_to_almost_0():
    assert (np.diff(THRESHOLDS) < 0).all()
    assert THRESHOLDS[0] > 1 - 1e-6
    assert THRESHOLDS[-1] < 1e-4


def test_threshold_is_the_last_before_the_first_failure():
    # 299 sure images without an error pass; the next 173 bring an error, one image short of the 473 that allow it.
    # With the 10,000 after them the bound would be met again, too late.
    confidence = np.array([0.999] * 299 + [0.9] * 173 + [0.6] * 10_000)
    correct = np.ones(len(confidence), dtype=bool)
    correct[299] = False
    guarantee = threshold_for_precision(confidence, correct, PROMISE)
    assert (guarantee.num_accepted, guarantee.num_errors) == (299, 0)
    assert guarantee.coverage == 299 / len(confidence)
    assert guarantee.lower_bound == pytest.approx(0.05 ** (1 / 299))
    assert 0.9 < guarantee.threshold <= 0.999


def test_threshold_with_one_error_needs_473_accepted():
    for extra, expected in ((173, 299), (174, 473)):
        confidence = np.array([0.999] * 299 + [0.9] * extra)
        correct = np.arange(len(confidence)) != 299
        assert threshold_for_precision(confidence, correct, PROMISE).num_accepted == expected


def test_threshold_accepts_everything_of_a_model_that_is_always_right():
    guarantee = threshold_for_precision(np.linspace(0.3, 1.0, 500), np.ones(500, dtype=bool), PROMISE)
    assert (guarantee.num_accepted, guarantee.coverage) == (500, 1.0)
    assert guarantee.threshold <= 0.3


def test_threshold_counts_are_those_of_the_images_at_or_above_it():
    confidence, correct = draw(np.random.default_rng(7), 5000)
    guarantee = threshold_for_precision(confidence, correct, 0.97)
    accepted = confidence >= guarantee.threshold
    assert guarantee.threshold in THRESHOLDS
    assert guarantee.num_accepted == accepted.sum()
    assert guarantee.num_errors == (accepted & ~correct).sum()
    assert guarantee.lower_bound >= 0.97


def test_threshold_accepts_a_confidence_equal_to_it():
    confidence = np.repeat(THRESHOLDS[[50, 51]], [299, 50])
    guarantee = threshold_for_precision(confidence, np.arange(349) < 299, PROMISE)
    assert (guarantee.threshold, guarantee.num_accepted) == (THRESHOLDS[50], 299)


@pytest.mark.parametrize("order_seed", [0, 1])
def test_threshold_does_not_depend_on_the_order_of_images(order_seed):
    confidence, correct = draw(np.random.default_rng(8), 2000)
    order = np.random.default_rng(order_seed).permutation(2000)
    assert threshold_for_precision(confidence[order], correct[order], 0.95) == threshold_for_precision(
        confidence, correct, 0.95
    )


def test_threshold_is_none_for_too_few_images_and_for_errors_among_the_surest():
    assert threshold_for_precision(np.full(298, 0.999), np.ones(298, dtype=bool), PROMISE) is None
    confidence = np.linspace(1.0, 0.5, 400)
    assert threshold_for_precision(confidence, np.arange(400) % 50 != 0, PROMISE) is None


@pytest.mark.parametrize("num_images", [1000, 5000])
def test_threshold_breaks_its_promise_in_at_most_5_percent_of_samples_and_the_naive_choice_often(num_images):
    rng, num_samples = np.random.default_rng(10), 400
    chosen, naive = [], []
    for _ in range(num_samples):
        confidence, correct = draw(rng, num_images)
        guarantee = threshold_for_precision(confidence, correct, PROMISE)
        chosen += [] if guarantee is None else [guarantee.threshold]
        threshold = naive_threshold(confidence, correct)
        naive += [] if threshold is None else [threshold]
    broken = (precisions(chosen) < PROMISE).sum() / num_samples
    naively_broken = (precisions(naive) < PROMISE).sum() / num_samples
    assert broken <= 0.05 + 3 * (0.05 * 0.95 / num_samples) ** 0.5
    assert naively_broken > 0.25
    assert len(chosen) > num_samples / 5  # it does not keep its promise by never making one


@pytest.mark.parametrize("precision", [0.0, 1.0, 99.0])
def test_threshold_refuses_a_precision_outside_0_and_1(precision):
    with pytest.raises(ValueError, match=f"precision must lie between 0 and 1, both excluded, got {precision}"):
        threshold_for_precision(np.array([0.5]), np.array([True]), precision)


def test_threshold_refuses_confidences_that_are_none():
    with pytest.raises(ValueError, match=r"confidence must lie in 0\.\.1"):
        threshold_for_precision(np.array([2.0]), np.array([True]), 0.9)
