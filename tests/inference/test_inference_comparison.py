"""Two models on the same images, by McNemar."""

from math import comb, sqrt

import numpy as np
import pytest
from scipy.stats import binomtest

from raytricks.inference.comparison import compare_models, mcnemar_p


def outcomes(both, only_a, only_b, neither):
    right_a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    right_b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return right_a, right_b


def test_comparison_counts_the_images_that_tell_the_models_apart():
    comparison = compare_models(*outcomes(both=80, only_a=9, only_b=4, neither=7))
    assert comparison.num_images == 100
    assert (comparison.accuracy_a, comparison.accuracy_b) == (0.89, 0.84)
    assert (comparison.num_only_a_correct, comparison.num_only_b_correct) == (9, 4)
    assert comparison.difference.value == 0.05
    assert comparison.p_value == mcnemar_p(9, 4)


def test_comparison_interval_is_agresti_mins_by_hand():
    difference = compare_models(*outcomes(both=80, only_a=9, only_b=4, neither=7)).difference
    only_a, only_b, total = 9.5, 4.5, 102
    error = sqrt(only_a + only_b - (only_a - only_b) ** 2 / total) / total
    expected = (5 / total - 1.959964 * error, 5 / total + 1.959964 * error)
    assert (difference.low, difference.high) == pytest.approx(expected, abs=1e-7)


def test_comparison_of_models_that_agree_has_no_difference_but_an_interval():
    comparison = compare_models(*outcomes(both=90, only_a=0, only_b=0, neither=10))
    assert comparison.p_value == 1.0
    assert comparison.difference.value == 0.0
    assert comparison.difference.high == -comparison.difference.low == pytest.approx(1.96 / 102, rel=1e-3)


def test_comparison_interval_stays_within_1():
    difference = compare_models(np.array([True]), np.array([False])).difference
    assert difference.value == 1.0
    assert -1 <= difference.low <= difference.high == 1.0


def test_comparison_the_other_way_round_changes_the_sign():
    right_a, right_b = outcomes(both=50, only_a=20, only_b=5, neither=25)
    there, back = compare_models(right_a, right_b), compare_models(right_b, right_a)
    assert there.p_value == back.p_value
    assert (there.difference.low, there.difference.high) == (-back.difference.high, -back.difference.low)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (1, 1), (0, 6), (9, 4), (30, 61), (500, 420)])
def test_mcnemar_p_is_the_exact_binomial_test(only_a, only_b):
    discordant = only_a + only_b
    tail = sum(comb(discordant, count) for count in range(min(only_a, only_b) + 1)) / 2**discordant
    assert mcnemar_p(only_a, only_b) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar_p(only_a, only_b) == pytest.approx(binomtest(only_a, discordant, 0.5).pvalue, rel=1e-9)


def test_mcnemar_p_without_a_discordant_image_is_1():
    assert mcnemar_p(0, 0) == 1.0


def test_comparison_interval_covers_the_difference_about_95_times_of_100():
    counts = np.random.default_rng(0).multinomial(200, [0.8, 0.08, 0.04, 0.08], size=1000)
    found = [compare_models(*outcomes(*row)).difference for row in counts]
    covered = np.mean([part.low <= 0.04 <= part.high for part in found])
    assert 0.925 <= covered <= 0.98


@pytest.mark.parametrize(("num_a", "num_b"), [(0, 0), (2, 3)])
def test_comparison_refuses_other_images(num_a, num_b):
    with pytest.raises(ValueError, match=rf"same images, got \({num_a},\) and \({num_b},\)"):
        compare_models(np.ones(num_a, dtype=bool), np.ones(num_b, dtype=bool))
