"""The search space of a config: which settings it varies, and how values of them are drawn.

Every distribution is one axis from 0 to 1 (`unit_to_value`), on which any sampler, random or
model-based, can move: evenly in the logarithm where the distribution is logarithmic, with the
single values (`also`) in the first quarter and the range in the rest.
"""

from collections.abc import Mapping
from itertools import product
import math
from typing import Any

import numpy as np

from raytricks.config import ExperimentConfig, flatten, load_config
from raytricks.config.schemas import with_values
from raytricks.config.search_space import AnyKind, Choice, Grid, LogUniform, QUniform, RandInt, Uniform
from raytricks.errors import ConfigError

ALSO_SHARE = 0.25
"""Part of the axis, and so of random draws, that the single values beside a range share."""


def searched_keys(config: ExperimentConfig) -> tuple[str, ...]:
    """Return the dotted keys that the config's search varies, in the order given."""
    return tuple(config.tune.space)


def default_values(config: ExperimentConfig) -> dict[str, Any]:
    """Return the config's own value of each searched key: the first trial."""
    values = flatten(config)
    return {key: values[key] for key in config.tune.space}


def apply_values(config: ExperimentConfig, values: Mapping[str, Any]) -> ExperimentConfig:
    """Return the config of one trial: with these values and without a search.

    Args:
        config: the config of the search.
        values: dotted key -> value; settings of a part that the trial does not use, such as another optimizer's,
            are left out.

    Raises:
        ConfigError: the values, or their combination, are not allowed.
    """
    own = {key: value for key, value in flatten(config).items() if not key.startswith("tune.")}
    _, merged = with_values(type(config), own, values)
    own = {key: value for key, value in merged.items() if key not in values}
    given = {key: value for key, value in merged.items() if key in values}
    return load_config(None, given, own, "the config searched").config


def sample_values(config: ExperimentConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Return one random value of each searched key; draws one number of `rng` a key."""
    return {key: unit_to_value(distribution, rng.random()) for key, distribution in config.tune.space.items()}


def grid_values(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Return every combination of the searched values; the last key varies fastest.

    Raises:
        ConfigError: a key is searched in a range, which has no end of values.
    """
    ranges = [key for key, distribution in config.tune.space.items() if not isinstance(distribution, Choice | Grid)]
    if ranges:
        raise ConfigError(
            [f"tune.space.{key}: is a range, which a grid cannot hold; list its values" for key in ranges]
        )
    lists = [
        distribution.values for distribution in config.tune.space.values() if isinstance(distribution, Choice | Grid)
    ]
    return [dict(zip(config.tune.space, values, strict=True)) for values in product(*lists)] if lists else []


def space_warnings(config: ExperimentConfig) -> list[str]:
    """Return one line for each thing that makes the search's result hard to read."""
    space = config.tune.space
    if config.tricks.lr_scaling == "none" and {"recipe.base_lr", "recipe.global_batch_size"} <= set(space):
        return [
            "recipe.base_lr and recipe.global_batch_size are searched together with tricks.lr_scaling none: the best "
            "lr rises with the batch, so each value of one suits few of the other; set tricks.lr_scaling=linear"
        ]
    return []


def unit_to_value(distribution: AnyKind, unit: float) -> Any:
    """Return the value at a point of the distribution's axis.

    Args:
        distribution: what the value is drawn from.
        unit: 0 to 1; both ends are allowed.

    Raises:
        ValueError: `unit` is outside 0 to 1.
    """
    if not 0 <= unit <= 1:
        raise ValueError(f"unit must be in [0, 1], got {unit}")
    if isinstance(distribution, Choice | Grid):
        return _item(distribution.values, unit)
    if distribution.also:
        if unit < ALSO_SHARE:
            return _item(distribution.also, unit / ALSO_SHARE)
        unit = (unit - ALSO_SHARE) / (1 - ALSO_SHARE)
    return _in_range(distribution, unit)


def value_to_unit(distribution: AnyKind, value: Any) -> float:
    """Return the point of the distribution's axis at which a value lies, 0 to 1.

    A value that has a stretch of the axis, as every listed or whole number has, is put in its middle.

    Raises:
        ValueError: the distribution never draws the value.
    """
    if isinstance(distribution, Choice | Grid):
        return _middle(distribution.values, value)
    if not distribution.also:
        return _range_unit(distribution, value)
    if value in distribution.also:
        return ALSO_SHARE * _middle(distribution.also, value)
    return ALSO_SHARE + (1 - ALSO_SHARE) * _range_unit(distribution, value)


def _in_range(distribution: Uniform | LogUniform | QUniform | RandInt, unit: float) -> float:
    low, high = distribution.low, distribution.high
    if isinstance(distribution, RandInt):
        return _item(range(distribution.low, distribution.high + 1), unit)
    if isinstance(distribution, QUniform):
        return _multiple(distribution, _item(distribution.multiples, unit))
    if isinstance(distribution, LogUniform):
        value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        value = low * (1 - unit) + high * unit  # high - low may overflow
    return min(max(value, low), high)


def _range_unit(distribution: Uniform | LogUniform | QUniform | RandInt, value: Any) -> float:
    low, high = distribution.low, distribution.high
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{value!r} is not drawn: the range is {low:g} to {high:g}")
    if isinstance(distribution, RandInt):
        return _middle(range(distribution.low, distribution.high + 1), value)
    if isinstance(distribution, QUniform):
        factor = round(value / distribution.q)
        if factor not in distribution.multiples or not math.isclose(_multiple(distribution, factor), value):
            raise ValueError(f"{value!r} is not drawn: it is no multiple of {distribution.q:g}")
        return _middle(distribution.multiples, factor)
    if isinstance(distribution, LogUniform):
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value / 2 - low / 2) / (high / 2 - low / 2)


def _multiple(distribution: QUniform, factor: int) -> float:
    value = factor * distribution.q
    if isinstance(value, int):
        return value
    rounded = float(f"{value:.12g}")  # 3 * 0.1 is 0.30000000000000004
    return min(max(rounded, distribution.low), distribution.high)


def _item(items: tuple | range, unit: float) -> Any:
    return items[min(int(unit * len(items)), len(items) - 1)]


def _middle(items: tuple | range, value: Any) -> float:
    if value not in items:
        raise ValueError(f"{value!r} is not drawn: the values are {', '.join(map(repr, items))}")
    return (items.index(value) + 0.5) / len(items)
