"""What is read out of a study's trials."""

import random

import pytest

from raytricks.tuning.analysis import (
    best_so_far,
    best_trial,
    knob_importance,
    pareto_front,
    rung_correlation,
    scale_of,
    value_text,
)
from raytricks.tuning.outcome import TrialOutcome


def trial(number, *top1, status="finished", end_s=0.0, train_s=1.0, **values):
    elapsed_s = tuple(end_s - len(top1) + 1 + i for i in range(len(top1)))
    return TrialOutcome(number=number, values=values, status=status, top1=top1, elapsed_s=elapsed_s, train_s=train_s)


def test_best_trial_is_the_highest_last_score_not_the_highest_ever():
    assert best_trial([trial(0, 0.1, 0.5), trial(1, 0.99, 0.6), trial(2, 0.2, 0.7)]) == 2


def test_best_trial_of_equal_scores_is_the_lowest_number_in_any_order():
    assert best_trial([trial(2, 0.7), trial(0, 0.7), trial(1, 0.7)]) == 0


@pytest.mark.parametrize("status", ["stopped", "failed", "unfinished"])
def test_best_trial_must_have_finished(status):
    assert best_trial([trial(0, 0.3), trial(1, 0.9, status=status)]) == 0
    assert best_trial([trial(1, 0.9, status=status)]) is None


def test_best_so_far_follows_time_and_only_rises():
    trials = [
        trial(0, 0.5, end_s=30),
        trial(1, 0.6, end_s=20),
        trial(2, 0.8, end_s=40),
        trial(3, 0.4, end_s=10),
        trial(4, 0.9, end_s=5, status="stopped"),
        trial(5, 0.8, end_s=50),
    ]
    assert best_so_far(trials) == [(10, 0.4), (20, 0.6), (40, 0.8)]


def test_pareto_front_leaves_out_what_another_beats_in_one_and_equals_in_the_other():
    trials = [
        trial(0, 0.7, train_s=10),
        trial(1, 0.6, train_s=10),  # equally fast, worse
        trial(2, 0.7, train_s=12),  # equally good, slower
        trial(3, 0.9, train_s=20),
        trial(4, 0.5, train_s=5),
        trial(5, 0.9, train_s=20),  # the twin of 3
        trial(6, 0.99, train_s=1, status="stopped"),
    ]
    assert pareto_front(trials) == [4, 0, 3, 5]


def test_rung_correlation_is_spearman_by_hand():
    # Ranks after epoch 1: 1 2 3 4, final: 1 3 2 4; rho = 1 - 6 * 2 / (4 * 15). After epoch 2: reversed.
    trials = [trial(0, 0.1, 0.9, 0.5), trial(1, 0.2, 0.7, 0.7), trial(2, 0.3, 0.8, 0.6), trial(3, 0.4, 0.1, 0.8)]
    assert rung_correlation(trials, [1, 2, 3]) == pytest.approx({1: 0.8, 2: -1.0, 3: 1.0})


def test_rung_correlation_needs_three_finished_trials_that_passed_the_rung():
    trials = [trial(0, 0.1, 0.2), trial(1, 0.2, 0.3), trial(2, 0.3, status="stopped"), trial(3, 0.35)]
    assert set(rung_correlation(trials, [1, 2])) == {1}


@pytest.mark.parametrize("constant", [0, 1])
def test_rung_correlation_leaves_out_scores_that_are_all_equal(constant):
    curves = [(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]
    trials = [
        trial(i, *(0.4 if epoch == constant else top1 for epoch, top1 in enumerate(c))) for i, c in enumerate(curves)
    ]
    assert 1 not in rung_correlation(trials, [1])


def searched(num_trials, score):
    rng = random.Random(0)
    drawn = [
        {"lr": 10 ** rng.uniform(-3, 0), "kind": rng.choice("abc"), "flag": rng.random() < 0.5, "fixed": 3}
        for _ in range(num_trials)
    ]
    return [trial(i, score(values), **values) for i, values in enumerate(drawn)]


@pytest.mark.parametrize(
    ("key", "score"),
    [("lr", lambda v: v["lr"] ** 0.3), ("kind", lambda v: {"a": 0.1, "b": 0.9, "c": 0.2}[v["kind"]])],
)
def test_knob_importance_finds_the_key_that_makes_the_score(key, score):
    importance = knob_importance(searched(40, score), seed=1)
    assert importance[key][0] > 0.95
    assert sum(mean for mean, _ in importance.values()) == pytest.approx(1)
    assert importance["fixed"] == (0, 0)
    assert 0 < importance[key][1] < 0.5


def test_knob_importance_repeats_by_its_seed_and_reads_finished_trials_only():
    trials = searched(12, lambda v: v["lr"])
    misleading = [trial(20 + i, float(i % 2), status="stopped", lr=0.5, kind="ab"[i % 2], flag=True) for i in range(9)]
    assert knob_importance(trials + misleading, seed=3) == knob_importance(trials, seed=3)
    assert knob_importance(trials, seed=4) != knob_importance(trials, seed=3)


def test_knob_importance_reads_lists_and_none_as_categories():
    trials = [trial(i, 0.9 if i % 2 else 0.1, clip=None if i % 2 else 1.0, crop=(0.1, 1.0)) for i in range(8)]
    assert knob_importance(trials, seed=0) == {"clip": (pytest.approx(1), pytest.approx(0, abs=0.5)), "crop": (0, 0)}


def test_knob_importance_is_empty_with_too_little_to_explain():
    assert knob_importance(searched(4, lambda v: v["lr"]), seed=0) == {}
    assert knob_importance(searched(8, lambda v: 0.5), seed=0) == {}
    assert knob_importance([trial(i, i / 10) for i in range(8)], seed=0) == {}


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.01, 0.2], "linear"),  # exactly a factor 20
        ([0.01, 0.201], "log"),
        ([0.0, 1.0, 1000.0], "linear"),
        ([64, 4096], "log"),
        ([True, False], "category"),
        ([1, True], "category"),
        ([1.0, None], "category"),
        (["a"], "category"),
        ([], "category"),
    ],
)
def test_scale_of_values(values, scale):
    assert scale_of(values) == scale


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("shift", "shift"),
        (True, "true"),
        (None, "null"),
        (4096, "4096"),
        (0.00012345678, "0.0001235"),
        ((0.08, 1.0), "[0.08, 1]"),
    ],
)
def test_value_text_reads_like_yaml(value, text):
    assert value_text(value) == text
