"""Wilson's interval, Clopper-Pearson's bound and the percentiles of resamples."""

import numpy as np
import pytest
from scipy.stats import binomtest

from raytricks.inference.intervals import UNDEFINED, clopper_pearson_lower, percentile_bounds, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (9_873, 10_000)])
def test_wilson_is_scipys(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    estimate = wilson(successes, trials)
    assert estimate.value == successes / trials
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_trials_is_undefined():
    assert wilson(0, 0) == UNDEFINED
    assert UNDEFINED.as_dict() == {"value": None, "low": None, "high": None}


def test_wilson_ends_are_exact():
    assert wilson(0, 30).low == 0.0
    assert wilson(30, 30).high == 1.0


def test_wilson_covers_the_share_about_95_times_of_100():
    hits = np.random.default_rng(0).binomial(50, 0.9, size=2000)
    intervals = {count: wilson(count, 50) for count in set(hits.tolist())}
    covered = np.mean([intervals[count].low <= 0.9 <= intervals[count].high for count in hits.tolist()])
    assert 0.93 <= covered <= 0.985


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (1, 5), (5, 5), (299, 299), (980, 1000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_clopper_pearson_lower_is_scipys(successes, trials, confidence):
    test = binomtest(successes, trials, alternative="greater")
    expected = test.proportion_ci(confidence, method="exact").low
    assert clopper_pearson_lower(successes, trials, confidence) == pytest.approx(expected, rel=1e-9)


def test_clopper_pearson_lower_without_trials_rules_nothing_out():
    assert clopper_pearson_lower(0, 0) == 0.0


def test_clopper_pearson_lower_is_above_the_share_at_most_5_times_of_100():
    hits = np.random.default_rng(1).binomial(200, 0.97, size=4000)
    bounds = {count: clopper_pearson_lower(count, 200) for count in set(hits.tolist())}
    broken = np.mean([bounds[count] > 0.97 for count in hits.tolist()])
    assert broken <= 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5


@pytest.mark.parametrize("call", [wilson, clopper_pearson_lower])
def test_interval_refuses_more_successes_than_trials(call):
    with pytest.raises(ValueError, match=r"successes must lie in 0\.\.trials, got 3 of 2"):
        call(3, 2)


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_clopper_pearson_lower_refuses_a_confidence_outside_0_and_1(confidence):
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        clopper_pearson_lower(1, 2, confidence)


def test_percentile_bounds_is_numpys_and_skips_undefined_resamples():
    resamples = np.random.default_rng(2).normal(size=(500, 3))
    resamples[::7, 1] = np.nan
    low, high = percentile_bounds(resamples)
    np.testing.assert_allclose([low, high], np.nanquantile(resamples, [0.025, 0.975], axis=0), rtol=1e-12)


def test_percentile_bounds_of_no_defined_resample_is_nan():
    low, high = percentile_bounds(np.full((10, 1), np.nan))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_percentile_bounds_of_one_column_of_values_are_numbers():
    low, high = percentile_bounds(np.arange(101.0))
    assert (float(low), float(high)) == pytest.approx((2.5, 97.5))
