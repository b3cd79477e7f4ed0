"""The winner against the default, by Welch."""

import pytest
from scipy.stats import ttest_ind

from raytricks.tuning.certificate import certificate_lines, make_certificate, points_text
from raytricks.tuning.outcome import Arm


def arm(name, *test_top1, search=0.9, values=None):
    seeds = tuple(range(101, 101 + len(test_top1)))
    return Arm(
        name=name,
        values={"recipe.base_lr": 0.1 if name == "default" else 0.3} if values is None else values,
        search_top1=search,
        seeds=seeds,
        test_top1=test_top1,
    )


DEFAULT = (0.90, 0.91, 0.89)


@pytest.mark.parametrize("winner", [(0.94, 0.95, 0.96), (0.85, 0.83, 0.84, 0.86), (0.90, 0.93)])
def test_certificate_interval_is_welchs(winner):
    certificate = make_certificate(arm("default", *DEFAULT), arm("winner", *winner), 1000)
    expected = ttest_ind(winner, DEFAULT, equal_var=False).confidence_interval(0.95)
    assert (certificate.low, certificate.high) == pytest.approx((expected.low, expected.high))
    assert certificate.difference == pytest.approx(sum(winner) / len(winner) - 0.90)


def test_certificate_interval_with_one_constant_arm_is_the_other_arms_by_hand():
    # Variance 2e-4 of two scores: squared error 1e-4, one degree of freedom, t = 12.706.
    certificate = make_certificate(arm("default", 0.9, 0.9), arm("winner", 0.91, 0.93), 1000)
    assert (certificate.low, certificate.high) == pytest.approx((0.02 - 0.12706, 0.02 + 0.12706), abs=1e-5)


def test_certificate_without_any_spread_has_the_difference_as_its_interval():
    certificate = make_certificate(arm("default", 0.9, 0.9, 0.9), arm("winner", 0.91, 0.91, 0.91), 1000)
    assert certificate.low == certificate.high == certificate.difference == pytest.approx(0.01)
    assert certificate.verdict.startswith("better")


@pytest.mark.parametrize(
    ("winner", "verdict"),
    [
        ((0.94, 0.95, 0.96), "better than the default beyond the noise of 3 seeds: +5.00 points of test top-1"),
        (
            (0.84, 0.85, 0.86),
            "worse than the default beyond the noise of 3 seeds: -5.00 points of test top-1; keep the default",
        ),
        (
            (0.91, 0.92, 0.90),
            "not better than the default beyond the noise of 3 seeds: keep the default, or search longer",
        ),
        (
            (0.91, 0.92),
            "not better than the default beyond the noise of 2 and 3 seeds: keep the default, or search longer",
        ),
        (DEFAULT, "not better than the default beyond the noise of 3 seeds: keep the default, or search longer"),
    ],
)
def test_certificate_verdict_follows_the_interval(winner, verdict):
    assert make_certificate(arm("default", *DEFAULT), arm("winner", *winner), 1000).verdict == verdict


def test_certificate_of_one_seed_gives_no_interval_and_no_judgement():
    certificate = make_certificate(arm("default", 0.9), arm("winner", 0.95), 1000)
    assert certificate.low is None
    assert certificate.high is None
    assert "1 seed cannot tell" in certificate.verdict
    assert not any("interval" in line for line in certificate_lines(certificate))


def test_certificate_of_the_default_itself_says_that_the_search_found_nothing():
    values = {"recipe.base_lr": 0.1}
    winner = arm("winner", 0.94, 0.95, 0.96, values=values)
    verdict = make_certificate(arm("default", *DEFAULT, values=values), winner, 1000).verdict
    assert verdict == "the search found nothing better than the default: keep it, or search longer"


def test_certificate_without_scores_is_refused():
    with pytest.raises(ValueError, match="the winner of a certificate needs at least one test score, got none"):
        make_certificate(arm("default", 0.9), arm("winner"), 1000)


def test_certificate_lines_give_every_figure_in_points():
    winner = arm("winner", 0.94, 0.95, 0.96, search=0.9725)
    assert certificate_lines(make_certificate(arm("default", *DEFAULT, search=None), winner, 10_000)) == [
        "default   not scored in the search, test 90.00 +- 1.00% (seed 101: 90.00, 102: 91.00, 103: 89.00)",
        "winner    search 97.25%, test 95.00 +- 1.00% (seed 101: 94.00, 102: 95.00, 103: 96.00)",
        "gain      +5.00 points, 95% interval +2.73 to +7.27, on 10,000 test images",
        "verdict   better than the default beyond the noise of 3 seeds: +5.00 points of test top-1",
        "note      the winner's search score is 2.25 points above its mean when retrained: a search picks the luckiest "
        "trial",
    ]


@pytest.mark.parametrize("search", [0.95, 0.5, None])
def test_certificate_lines_call_no_search_lucky_that_was_not(search):
    winner = arm("winner", 0.95, 0.95, search=search)
    assert len(certificate_lines(make_certificate(arm("default", *DEFAULT), winner, 1000))) == 4


def test_points_text_has_no_negative_zero():
    assert [points_text(x) for x in (-0.00001, 0.0, -0.00006, 0.5)] == ["+0.00", "+0.00", "-0.01", "+50.00"]
