"""Population-based training: settings close to a better trial's, for the trial that takes over its weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from raytricks.config import ExperimentConfig
from raytricks.config.changes import changeable_keys, changed_config
from raytricks.config.search_space import AnyKind, Choice, Grid
from raytricks.errors import ConfigError
from raytricks.tuning.space import unit_to_value, value_to_unit

_STEP = 0.2
_RESAMPLED = 0.25
_MOST_DRAWS = 20


def explore(
    base: ExperimentConfig, config: ExperimentConfig, values: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    """Return new values of the searched keys, each a step from the old one or drawn afresh.

    A step is a fifth of the axis of the key's distribution, up or down, or the next listed value.
    Every fourth value is drawn afresh. Keys that may not change in the course of a run keep theirs.

    Args:
        base: of the study; its tune.space has the distributions.
        config: that holds in the donor now; the new values are valid in its place.
        values: the donor's.
    """
    free = set(changeable_keys(type(config)))
    space = {key: distribution for key, distribution in base.tune.space.items() if key in free}
    for _ in range(_MOST_DRAWS):
        drawn = {key: _moved(distribution, values[key], rng) for key, distribution in space.items()}
        try:
            changed_config(config, drawn)
        except ConfigError:  # of values that exclude each other
            continue
        return dict(values) | drawn
    return dict(values)


def _moved(distribution: AnyKind, value: Any, rng: np.random.Generator) -> Any:
    is_resampled, resampled = rng.random() < _RESAMPLED, rng.random()
    direction = 1 if rng.random() < 0.5 else -1
    try:
        unit = value_to_unit(distribution, tuple(value) if isinstance(value, list) else value)
    except ValueError:  # the default config may lie outside what is searched
        is_resampled, unit = True, 0.0
    if is_resampled:
        return unit_to_value(distribution, resampled)
    step = max(_STEP, 1 / len(distribution.values)) if isinstance(distribution, Choice | Grid) else _STEP
    return unit_to_value(distribution, min(1.0, max(0.0, unit + direction * step)))
