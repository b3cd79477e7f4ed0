"""The values of a study's trials, drawn before it starts: the config as it is, then samples or a grid."""

from typing import Any

import numpy as np

from raytricks.config.schema import ExperimentConfig
from raytricks.config.search_space import Choice, Distribution, LogUniform, Uniform
from raytricks.errors import ConfigError
from raytricks.recipe.recipe import make_recipe
from raytricks.tuning.space import apply_values, default_values, grid_values, sample_values

MOST_GRID_TRIALS = 200
_DRAW_STREAM = 7  # keeps this generator apart from the others made of the same seed
_MOST_DRAWS = 50  # of a point, before its rules are thought to exclude everything


def draw_points(config: ExperimentConfig, num_train_images: int) -> tuple[dict[str, Any], ...]:
    """Return the values of every trial, the config's own first; optuna's others are not known yet.

    Args:
        config: resolved, with its search space.
        num_train_images: that trials train on.

    Raises:
        ConfigError: too large a grid, or a value that no trial could be run with.
    """
    default = default_values(config)
    _require_batches_fit(config, num_train_images)
    if config.tune.sampler == "optuna":
        return (default,)
    if config.tune.sampler == "grid":
        others = [values for values in grid_values(config) if values != default]
        if len(others) >= MOST_GRID_TRIALS:
            raise ConfigError(
                f"tune.space: the grid has {len(others):,} points, at most {MOST_GRID_TRIALS - 1} are run; list fewer "
                "values or set tune.sampler=random with tune.num_trials"
            )
        for values in others:
            apply_values(config, values)
        return (default, *others)
    rng = np.random.default_rng((config.seed, _DRAW_STREAM))
    return (default, *(_draw(config, rng) for _ in range(config.tune.num_trials - 1)))


def three_knobs(config: ExperimentConfig, num_train_images: int) -> dict[str, Distribution]:
    """Return what is searched where a config names nothing: label smoothing, mixup, and the batch with its lr.

    The lr is that at a batch of 256, which the recipe scales: a multiplier, not the lr itself.
    """
    batch, base_lr = config.recipe.global_batch_size, config.recipe.base_lr
    batches = (max(2, batch // 2), batch, min(2 * batch, max(batch, num_train_images)))
    return {
        "tricks.label_smoothing.epsilon": Uniform(low=0.02, high=0.3, also=(0.0,)),
        "tricks.mixup.alpha": LogUniform(low=0.05, high=1.0, also=(0.0,)),
        "recipe.global_batch_size": Choice(values=tuple(dict.fromkeys(batches))),
        "recipe.base_lr": LogUniform(low=base_lr / 3, high=base_lr * 3),
    }


def _draw(config: ExperimentConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Draw until the values suit each other; what suits no other values was refused with the config."""
    for attempt in range(_MOST_DRAWS):
        values = sample_values(config, rng)
        try:
            apply_values(config, values)
        except ConfigError:
            if attempt == _MOST_DRAWS - 1:
                raise
            continue
        return values
    raise AssertionError("a draw returns or raises")


def _require_batches_fit(config: ExperimentConfig, num_train_images: int) -> None:
    """Refuse the largest batch that could be drawn where it leaves a trial without a step."""
    distribution = config.tune.space.get("recipe.global_batch_size")
    values = getattr(distribution, "values", None) or (getattr(distribution, "high", None),)
    largest = max([value for value in values if value is not None], default=None)
    if largest is not None:
        whole = apply_values(config, {"recipe.global_batch_size": largest})
        make_recipe(whole, num_train_images)
