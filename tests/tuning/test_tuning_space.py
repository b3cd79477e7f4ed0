"""Values of a search space: one axis from 0 to 1 a key, the config of a trial, grids."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from raytricks.config import ExperimentConfig, TuneConfig, load_config
from raytricks.config.search_space import Choice, Grid, LogUniform, QUniform, RandInt, Uniform
from raytricks.errors import ConfigError
from raytricks.tuning.space import (
    apply_values,
    default_values,
    grid_values,
    sample_values,
    searched_keys,
    space_warnings,
    unit_to_value,
    value_to_unit,
)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
UNITS = st.floats(0, 1)


def searching(**settings) -> ExperimentConfig:
    """Return a config with a small search."""
    space = ["tune.space.tricks.mixup.alpha=[0, 0.2]", "tune.space.recipe.global_batch_size=[64, 128, 256]"]
    return load_config(None, space + [f"{key}={value}" for key, value in settings.items()]).config


@pytest.mark.parametrize(
    ("distribution", "unit", "value"),
    [
        (Uniform(low=2, high=4), 0, 2),
        (Uniform(low=2, high=4), 0.25, 2.5),
        (Uniform(low=2, high=4), 1, 4),
        (LogUniform(low=0.01, high=1), 0.5, 0.1),
        (LogUniform(low=0.01, high=1), 1, 1),
        (RandInt(low=1, high=4), 0.24, 1),
        (RandInt(low=1, high=4), 0.25, 2),
        (RandInt(low=1, high=4), 1, 4),
        (QUniform(low=0.1, high=0.35, q=0.1), 0.99, 0.3),
        (QUniform(low=10, high=70, q=32), 0.49, 32),
        (QUniform(low=10, high=70, q=32), 0.5, 64),
        (Choice(values=["a", "b", "c"]), 0.34, "b"),
        (Grid(values=["a", "b"]), 1, "b"),
        # single values: equal parts of the first quarter, in the order given
        (Uniform(low=2, high=4, also=[0, 9]), 0, 0),
        (Uniform(low=2, high=4, also=[0, 9]), 0.124, 0),
        (Uniform(low=2, high=4, also=[0, 9]), 0.125, 9),
        (Uniform(low=2, high=4, also=[0, 9]), 0.249, 9),
        (Uniform(low=2, high=4, also=[0, 9]), 0.25, 2),
        (Uniform(low=2, high=4, also=[0, 9]), 0.625, 3),
        (LogUniform(low=0.01, high=1, also=[0]), 0.625, 0.1),
        (RandInt(low=1, high=3, also=[None]), 0.1, None),
        (RandInt(low=1, high=3, also=[None]), 0.51, 2),
    ],
)
def test_unit_to_value_is_as_computed_by_hand(distribution, unit, value):
    found = unit_to_value(distribution, unit)
    assert found == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value)


@st.composite
def ranges(draw):
    """Draw a range of floats, some with single values below it."""
    low = draw(st.floats(1e-6, 1e3))
    high = low * draw(st.floats(1.01, 1e3))
    also = draw(st.lists(st.sampled_from([0.0, -1.0, -2.5]), unique=True))
    return draw(st.sampled_from([Uniform, LogUniform]))(low=low, high=high, also=also)


@given(distribution=ranges(), unit=UNITS)
def test_value_of_a_range_and_its_unit_are_inverse(distribution, unit):
    value = unit_to_value(distribution, unit)
    assert value in distribution.also or distribution.low <= value <= distribution.high
    again = value_to_unit(distribution, value)
    assert unit_to_value(distribution, again) == pytest.approx(value, rel=1e-9)
    if value not in distribution.also:
        assert again == pytest.approx(unit, abs=1e-6)
    else:
        assert again < 0.25 and unit < 0.25


@given(distribution=ranges(), units=st.tuples(UNITS, UNITS).map(sorted))
def test_larger_units_give_larger_values_of_a_range(distribution, units):
    low, high = (0.25 + 0.75 * unit if distribution.also else unit for unit in units)
    assert unit_to_value(distribution, low) <= unit_to_value(distribution, high) * (1 + 1e-12)


@given(
    low=st.integers(-50, 50),
    width=st.integers(1, 40),
    q=st.sampled_from([0.1, 0.25, 0.3, 1, 2, 7]),
    unit=UNITS,
)
def test_quniform_draws_multiples_within_its_range(low, width, q, unit):
    distribution = QUniform(low=low, high=low + max(width, q), q=q)
    value = unit_to_value(distribution, unit)
    assert distribution.low <= value <= distribution.high
    assert value / q == pytest.approx(round(value / q), abs=1e-9)
    assert unit_to_value(distribution, value_to_unit(distribution, value)) == value
    assert isinstance(value, int) == isinstance(q, int)


@given(low=st.integers(-(2**40), 2**40), width=st.integers(1, 2**20), data=st.data())
def test_whole_numbers_come_back_exactly(low, width, data):
    distribution = RandInt(low=low, high=low + width, also=[low - 3])
    value = data.draw(st.integers(low, low + width) | st.just(low - 3))
    assert unit_to_value(distribution, value_to_unit(distribution, value)) == value


def test_every_listed_value_comes_back():
    for distribution in (Choice(values=["a", None, (0.1, 0.5)]), Grid(values=[True, False]), Choice(values=[64, 512])):
        for value in distribution.values:
            assert unit_to_value(distribution, value_to_unit(distribution, value)) == value


@pytest.mark.parametrize(
    ("distribution", "value", "message"),
    [
        (Uniform(low=1, high=2), 2.5, "range is 1 to 2"),
        (Uniform(low=1, high=2), None, "range is 1 to 2"),
        (Uniform(low=1, high=2, also=[0]), 0.5, "range is 1 to 2"),
        (RandInt(low=1, high=5), 2.5, "not drawn"),
        (QUniform(low=1, high=9, q=2), 3, "no multiple of 2"),
        (Choice(values=[64, 128]), 96, "values are 64, 128"),
    ],
)
def test_value_that_is_never_drawn_has_no_unit(distribution, value, message):
    with pytest.raises(ValueError, match=message):
        value_to_unit(distribution, value)


@pytest.mark.parametrize("unit", [-0.01, 1.01, float("nan")])
def test_unit_outside_the_axis_is_refused(unit):
    with pytest.raises(ValueError, match="unit"):
        unit_to_value(Uniform(low=1, high=2), unit)


def test_random_draws_are_reproducible_even_and_a_quarter_single_values():
    config = load_config(CONFIGS / "tune_three_knobs.yaml").config
    assert sample_values(config, np.random.default_rng(3)) == sample_values(config, np.random.default_rng(3))
    rng = np.random.default_rng(0)
    draws = [sample_values(config, rng) for _ in range(4000)]
    alphas = np.array([draw["tricks.mixup.alpha"] for draw in draws])
    epsilons = np.array([draw["tricks.label_smoothing.epsilon"] for draw in draws])
    batches, counts = np.unique([draw["recipe.global_batch_size"] for draw in draws], return_counts=True)
    assert list(batches) == [64, 128, 256, 512] and counts.min() > 900
    assert np.mean(alphas == 0) == pytest.approx(0.25, abs=0.03)
    assert np.mean(epsilons == 0) == pytest.approx(0.25, abs=0.03)
    assert alphas[alphas > 0].min() >= 0.05 and alphas.max() <= 1
    assert np.median(alphas[alphas > 0]) == pytest.approx(0.05**0.5, rel=0.1)  # the middle of the logarithms
    assert np.median(epsilons[epsilons > 0]) == pytest.approx(0.16, rel=0.05)
    assert abs(np.corrcoef(alphas, epsilons)[0, 1]) < 0.06


def test_first_trial_is_the_config_as_it_is():
    config = searching(seed=3)
    assert searched_keys(config) == ("tricks.mixup.alpha", "recipe.global_batch_size")
    assert default_values(config) == {"tricks.mixup.alpha": 0.0, "recipe.global_batch_size": 256}
    assert apply_values(config, default_values(config)) == load_config(None, ["seed=3"]).config


def test_trial_is_a_plain_training_config():
    config = searching(**{"tune.num_trials": 3, "data.path": "a: b", "tricks.decay.milestones": "[0.5]"})
    trial = apply_values(config, {"tricks.mixup.alpha": 1, "data.crop_scale": (0.5, 1)})
    assert trial.tune == TuneConfig()
    assert (trial.tricks.mixup.alpha, trial.data.crop_scale) == (1.0, (0.5, 1.0))
    assert (trial.data, trial.recipe) == (config.data.model_copy(update={"crop_scale": (0.5, 1.0)}), config.recipe)
    assert trial.tricks.decay == config.tricks.decay


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.momentum": 0.0, "optimizer.nesterov": True}, "nesterov needs momentum > 0"),
        ({"tricks.mixup.alpha": -1}, "tricks.mixup.alpha: must be >= 0, got -1"),
        ({"tricks.mixup_alfa": 1}, "did you mean tricks.mixup.alpha"),
    ],
)
def test_trial_with_values_that_are_not_allowed_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        apply_values(searching(), values)


def test_grid_is_every_combination_with_the_last_key_fastest():
    combinations = [tuple(values.values()) for values in grid_values(searching())]
    assert combinations == [(a, b) for a in (0.0, 0.2) for b in (64, 128, 256)]
    assert grid_values(ExperimentConfig()) == []


def test_grid_of_a_range_is_refused():
    with pytest.raises(ConfigError, match=r"tune\.space\.recipe\.base_lr: is a range"):
        grid_values(load_config(None, ["tune.space.recipe.base_lr={kind: uniform, low: 0.1, high: 1}"]).config)


def test_lr_and_batch_without_scaling_are_warned_about():
    both = {"tune.space.recipe.base_lr": "[0.1, 0.4]"}
    (line,) = space_warnings(searching(**both, **{"tricks.lr_scaling": "none"}))
    assert "tricks.lr_scaling=linear" in line
    assert space_warnings(searching(**both)) == []
    assert space_warnings(searching(**{"tricks.lr_scaling": "none"})) == []


@pytest.mark.parametrize("name", ["tune_three_knobs.yaml", "tune_digits.yaml"])
def test_shipped_search_can_draw_its_own_default(name):
    config = load_config(CONFIGS / name).config
    assert set(searched_keys(config)) == {
        "tricks.label_smoothing.epsilon",
        "tricks.mixup.alpha",
        "recipe.global_batch_size",
        "recipe.base_lr",
    }
    for key, value in default_values(config).items():
        assert 0 <= value_to_unit(config.tune.space[key], value) <= 1
    for seed in range(20):
        apply_values(config, sample_values(config, np.random.default_rng(seed)))


@pytest.mark.parametrize(
    ("own", "other"), [("sgd", "lamb"), ("lamb", "sgd"), ("lars", "lamb"), ("sgd", "lars"), ("lamb", "adamw")]
)
def test_trial_with_another_optimizer_has_the_settings_of_that_one(own, other):
    settings = {"optimizer.name": own, "optimizer.weight_decay": 0.01, "recipe.base_lr": 0.2}
    config = load_config(None, settings | {"tune.space.optimizer.name": [own, other]}).config
    trial = apply_values(config, {"optimizer.name": other})
    assert trial == load_config(None, settings | {"optimizer.name": other}).config
    assert apply_values(config, {"optimizer.name": own}) == load_config(None, settings).config


def test_trial_leaves_out_what_is_searched_for_another_optimizer():
    space = {"optimizer.name": ["sgd", "lamb"], "optimizer.betas": [[0.5, 0.6], [0.9, 0.99]]}
    config = load_config(None, {"optimizer.name": "lamb", "tune.space": space}).config
    values = {"optimizer.name": "sgd", "optimizer.betas": (0.5, 0.6)}
    assert apply_values(config, values) == load_config(None, {}).config
    assert apply_values(config, values | {"optimizer.name": "lamb"}).optimizer.betas == (0.5, 0.6)


def test_trial_with_another_optimizer_keeps_what_both_have_and_the_config_sets():
    settings = {"optimizer.name": "lamb", "optimizer.betas": (0.8, 0.9), "tune.space.optimizer.name": ["lamb", "adamw"]}
    trial = apply_values(load_config(None, settings).config, {"optimizer.name": "adamw"})
    assert trial.optimizer.betas == (0.8, 0.9)
    assert trial.optimizer.epsilon == load_config(None, {"optimizer.name": "adamw"}).config.optimizer.epsilon
