"""After which epochs trials are judged, and how far the warmup keeps that off."""

from math import ceil, floor, log

from raytricks.config import ExperimentConfig
from raytricks.config.search_space import Choice, Grid

TAKING_TURNS = ("hyperband", "pbt")
"""Schedulers that compare trials while all of them wait or train."""
_WARMUP = "tricks.warmup.epochs"
_FIRST_PART = 9
"""No judgement before this part of the epochs, unless it is asked for."""


def rungs(config: ExperimentConfig) -> tuple[int, ...]:
    """Return the epochs, counted from 1, after which asha or hyperband judges trials; never the last.

    With other schedulers there are none.
    """
    tune, epochs = config.tune, config.recipe.epochs
    if tune.scheduler == "asha":
        return tuple(epoch for epoch in _rising(first_rung(config), tune.reduction_factor, epochs) if epoch < epochs)
    if tune.scheduler == "hyperband":
        span, offset, factor = judged_span(config), first_rung(config) - 1, tune.reduction_factor
        brackets = [(int(span * factor**-halvings), halvings) for halvings in range(_num_brackets(config))]
        judged = {start * factor**index for start, halvings in brackets if start for index in range(halvings)}
        return tuple(sorted(offset + epoch for epoch in judged if epoch < span))
    return ()


def first_rung(config: ExperimentConfig) -> int:
    """Return the first epoch that trials may be judged after: past the warmup of every trial."""
    asked = config.tune.grace_epochs or ceil(config.recipe.epochs / _FIRST_PART)
    return min(config.recipe.epochs, max(asked, floor(longest_warmup(config)) + 1))


def judged_span(config: ExperimentConfig) -> int:
    """Return how many epochs there are from the first that may be judged to the last."""
    return config.recipe.epochs - first_rung(config) + 1


def longest_warmup(config: ExperimentConfig) -> float:
    """Return the epochs of the longest warmup that a trial may have."""
    own = config.tricks.warmup.epochs
    distribution = config.tune.space.get(_WARMUP)
    if distribution is None:
        return own
    listed = distribution.values if isinstance(distribution, Choice | Grid) else (distribution.high, *distribution.also)
    return max(own, *(value for value in listed if isinstance(value, int | float)))


def _rising(start: int, factor: int, end: int) -> list[int]:
    epochs = [start]
    while epochs[-1] * factor <= end:
        epochs.append(epochs[-1] * factor)
    return epochs


def _num_brackets(config: ExperimentConfig) -> int:
    """Return how many kinds of bracket HyperBand has, as Ray Tune counts them."""
    return round(log(judged_span(config)) / log(config.tune.reduction_factor)) + 1
