"""A figure and its 95% interval: Wilson's for a share, Clopper-Pearson's bound for a promise, else resamples."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

Z_95 = 1.959963984540054  # the 97.5% point of the standard normal
_TAIL = 0.025


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval; None where it is undefined, such as the recall of a class without images."""

    value: float | None
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return it as a JSON object: value, low, high."""
        return {"value": self.value, "low": self.low, "high": self.high}


UNDEFINED = Estimate(None, None, None)


def wilson(successes: int, trials: int) -> Estimate:
    """Return a share and Wilson's 95% interval of it; undefined for no trials.

    Raises:
        ValueError: successes outside 0..trials.

    Source: Wilson 1927; without a continuity correction.
    """
    _check_counts(successes, trials)
    if trials == 0:
        return UNDEFINED
    share = successes / trials
    shrink = 1 + Z_95**2 / trials
    centre = (share + Z_95**2 / (2 * trials)) / shrink
    margin = Z_95 / shrink * math.sqrt(share * (1 - share) / trials + Z_95**2 / (4 * trials**2))
    # exactly 0 and 1 at the ends, which the formula misses by rounding
    low = 0.0 if successes == 0 else centre - margin
    high = 1.0 if successes == trials else centre + margin
    return Estimate(share, low, high)


def clopper_pearson_lower(successes: int, trials: int, confidence: float = 0.95) -> float:
    """Return the exact one-sided lower bound of a share; 0 for no trials, which rule nothing out.

    Args:
        confidence: how often, at least, the bound lies below the true share; in (0, 1).

    Raises:
        ValueError: successes outside 0..trials, or a confidence outside (0, 1).

    Source: Clopper and Pearson 1934.
    """
    from scipy.special import betaincinv  # a quarter of a second of import

    _check_counts(successes, trials)
    check_share("confidence", confidence)
    if successes == 0:
        return 0.0
    return float(betaincinv(successes, trials - successes + 1, 1 - confidence))


def percentile_bounds(resamples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5% and 97.5% points over the first axis, of the resamples in which the figure is defined.

    Args:
        resamples: (num_resamples, ...), NaN where a resample leaves the figure undefined.

    Returns:
        low and high, each (...), NaN where no resample defines the figure.
    """
    ordered = np.sort(resamples, axis=0)  # NaN last; nanquantile is slow over many columns, and warns
    last = np.maximum((~np.isnan(ordered)).sum(axis=0) - 1, 0)
    return _point(ordered, last * _TAIL), _point(ordered, last * (1 - _TAIL))


def check_share(name: str, value: float) -> None:
    """Refuse a value outside the open interval (0, 1).

    Raises:
        ValueError: with the name and the value.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, both excluded, got {value}")


def _point(ordered: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return each column at its own fractional position."""
    below = np.floor(position).astype(np.int64)
    above = np.ceil(position).astype(np.int64)
    lower = np.take_along_axis(ordered, below[None], axis=0)[0]
    upper = np.take_along_axis(ordered, above[None], axis=0)[0]
    return lower + (upper - lower) * (position - below)


def _check_counts(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in 0..trials, got {successes} of {trials}")
