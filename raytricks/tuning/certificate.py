"""Whether the winner of a search is better than the default: both trained again, fresh seeds, test images.

The search picks the luckiest of many trials, so its score flatters; only these runs tell.
"""

import math
from statistics import mean, variance

from raytricks.tuning.outcome import Arm, Certificate

_CONFIDENCE = 0.95


def make_certificate(default: Arm, winner: Arm, num_test_images: int) -> Certificate:
    """Compare the winner's test top-1 with the default's and put the answer in a sentence.

    Raises:
        ValueError: an arm without a single score.
    """
    for arm in (default, winner):
        if not arm.test_top1:
            raise ValueError(f"the {arm.name} of a certificate needs at least one test score, got none")
    difference = mean(winner.test_top1) - mean(default.test_top1)
    low, high = _welch_interval(winner.test_top1, default.test_top1)
    return Certificate(
        default=default,
        winner=winner,
        difference=difference,
        low=low,
        high=high,
        verdict=_verdict(default, winner, difference, low, high),
        num_test_images=num_test_images,
    )


def certificate_lines(certificate: Certificate) -> list[str]:
    """Return the certificate for a terminal: a line an arm, the difference, the verdict, and how lucky the search was.

    Everything is in percent or percentage points of top-1.
    """
    if certificate.winner.name == "default":  # nothing to compare it with
        return [_arm_line(certificate.default), f"{'verdict':9} {certificate.verdict}"]
    gap = f"{points_text(certificate.difference)} points{interval_text(certificate)}"
    lines = [
        _arm_line(certificate.default),
        _arm_line(certificate.winner),
        f"{'gain':9} {gap}, on {certificate.num_test_images:,} test images",
        f"{'verdict':9} {certificate.verdict}",
    ]
    optimism = search_optimism(certificate)
    if optimism is not None:
        lines.append(
            f"{'note':9} the winner's search score is {optimism * 100:.2f} points above its mean when retrained: "
            "a search picks the luckiest trial"
        )
    return lines


def search_optimism(certificate: Certificate) -> float | None:
    """Return by how much the winner's search score exceeds its mean retrained score, parts of 1; None if it does not.

    Part of it may be the other images: the search scores on the selection split, the certificate on the test images.
    """
    winner = certificate.winner
    excess = None if winner.search_top1 is None else winner.search_top1 - mean(winner.test_top1)
    return excess if excess is not None and excess > 0 else None


def interval_text(certificate: Certificate) -> str:
    """Return ", 95% interval LOW to HIGH" in percentage points, nothing where there is no interval."""
    if certificate.low is None or certificate.high is None:
        return ""
    return f", {_CONFIDENCE:.0%} interval {points_text(certificate.low)} to {points_text(certificate.high)}"


def mean_and_deviation(arm: Arm) -> str:
    """Return an arm's mean test top-1 and its standard deviation over the seeds, in percent."""
    text = f"{mean(arm.test_top1) * 100:.2f}"
    if len(arm.test_top1) > 1:
        text += f" +- {math.sqrt(variance(arm.test_top1)) * 100:.2f}"
    return text + "%"


def points_text(difference: float) -> str:
    """Return a difference of top-1 in percentage points, signed."""
    return f"{round(difference * 100, 2) + 0.0:+.2f}"  # + 0.0 turns -0.0 into 0.0


def _welch_interval(winner: tuple[float, ...], default: tuple[float, ...]) -> tuple[float | None, float | None]:
    """Return Welch's interval of the difference of means, without assuming that both arms vary alike.

    By its formula: scipy's ttest_ind warns of cancellation whenever one arm has no spread, which is common here
    (few seeds, few test images) and harmless. statistics.variance is exact, so no spread is exactly 0.
    """
    if min(len(winner), len(default)) < 2:
        return None, None
    difference = mean(winner) - mean(default)
    parts = [(variance(scores) / len(scores), len(scores) - 1) for scores in (winner, default)]
    squared_error = sum(part for part, _ in parts)
    if squared_error == 0:
        return difference, difference
    from scipy.stats import t  # half a second of import

    freedom = squared_error**2 / sum(part**2 / degrees for part, degrees in parts)
    margin = float(t.ppf((1 + _CONFIDENCE) / 2, freedom)) * math.sqrt(squared_error)
    return difference - margin, difference + margin


def _verdict(default: Arm, winner: Arm, difference: float, low: float | None, high: float | None) -> str:
    seeds = _seeds(default, winner)
    if winner.values == default.values:
        return "the search found nothing better than the default: keep it, or search longer"
    if low is None or high is None:
        return (
            f"{points_text(difference)} points against the default, but {seeds} cannot tell that from noise: "
            "retrain with at least 2 seeds"
        )
    if low > 0:
        return f"better than the default beyond the noise of {seeds}: {points_text(difference)} points of test top-1"
    if high < 0:
        return (
            f"worse than the default beyond the noise of {seeds}: {points_text(difference)} points of test top-1; "
            "keep the default"
        )
    return f"not better than the default beyond the noise of {seeds}: keep the default, or search longer"


def _seeds(default: Arm, winner: Arm) -> str:
    counts = sorted({len(default.test_top1), len(winner.test_top1)})
    return " and ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds")


def _arm_line(arm: Arm) -> str:
    search = "not scored in the search" if arm.search_top1 is None else f"search {arm.search_top1 * 100:.2f}%"
    scores = ", ".join(f"{seed}: {top1 * 100:.2f}" for seed, top1 in zip(arm.seeds, arm.test_top1, strict=True))
    return f"{arm.name:9} {search}, test {mean_and_deviation(arm)} (seed {scores})"
