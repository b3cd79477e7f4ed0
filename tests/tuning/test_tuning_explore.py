"""Where trials are judged, and the settings that follow a better trial's."""

import numpy as np
import pytest

from raytricks.config import load_config
from raytricks.tuning.pbt import explore
from raytricks.tuning.rungs import first_rung, rungs
from raytricks.tuning.space import unit_to_value, value_to_unit

SPACE = {
    "recipe.base_lr": {"kind": "loguniform", "low": 0.01, "high": 1.0},
    "tricks.mixup.alpha": {"kind": "uniform", "low": 0.1, "high": 1.0, "also": [0]},
    "recipe.global_batch_size": [16, 32, 64, 128, 256, 512, 1024],
    "model.width": [8, 16],
}
VALUES = {
    "recipe.base_lr": 0.1,
    "tricks.mixup.alpha": 0.0,
    "recipe.global_batch_size": 64,
    "model.width": 16,
}


def config_of(space=SPACE, **changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(None, {"data.source": "digits", "model.width": 16, "tune.space": space} | dotted).config


@pytest.mark.parametrize(
    ("epochs", "warmup", "grace", "factor", "expected"),
    [
        (9, 0.0, None, 3, (1, 3)),
        (12, 2.0, None, 3, (3, 9)),
        (6, 1.0, None, 3, (2,)),
        (120, 5.0, None, 3, (14, 42)),
        (27, 0.0, 1, 3, (1, 3, 9)),
        (12, 2.5, 1, 2, (3, 6)),  # asked for inside the warmup
        (12, 0.0, 12, 2, ()),
        (4, 3.9, None, 3, ()),
    ],
)
def test_asha_judges_past_the_warmup_and_never_at_the_end(epochs, warmup, grace, factor, expected):
    config = config_of(
        recipe__epochs=epochs,
        tricks__warmup__epochs=warmup,
        tune__grace_epochs=grace,
        tune__reduction_factor=factor,
        tune__scheduler="asha",
    )
    assert rungs(config) == expected


def test_longest_searched_warmup_counts():
    space = {"tricks.warmup.epochs": {"kind": "uniform", "low": 0.0, "high": 4.0}}
    config = config_of(space, recipe__epochs=20, tricks__warmup__epochs=1.0, tune__reduction_factor=2)
    assert first_rung(config) == 5
    assert first_rung(config_of({"tricks.warmup.epochs": [0, 7]}, recipe__epochs=20)) == 8


def test_hyperband_judges_at_the_rungs_of_each_bracket_past_the_warmup():
    config = config_of(
        recipe__epochs=11, tricks__warmup__epochs=2.0, tune__reduction_factor=3, tune__scheduler="hyperband"
    )
    assert rungs(config) == (3, 5)  # of the 9 epochs from the 3rd on: 1 and 3, and 3 in the smaller bracket


@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_other_schedulers_have_no_rungs(scheduler):
    assert rungs(config_of(tune__scheduler=scheduler)) == ()


def test_each_value_moves_a_step_on_its_axis_or_is_drawn_afresh():
    config = config_of()
    space = config.tune.space
    rng = np.random.default_rng(0)
    drawn = [explore(config, config, VALUES, rng) for _ in range(400)]
    lrs = [values["recipe.base_lr"] for values in drawn]
    near = {
        unit_to_value(space["recipe.base_lr"], value_to_unit(space["recipe.base_lr"], 0.1) + d) for d in (-0.2, 0.2)
    }
    share = sum(any(lr == pytest.approx(value) for value in near) for lr in lrs) / len(lrs)
    assert 0.68 < share < 0.82 and all(0.01 <= lr <= 1 for lr in lrs)
    assert {min(near), max(near)} <= {min(near, key=lambda n, lr=lr: abs(n - lr)) for lr in lrs}
    batches = [values["recipe.global_batch_size"] for values in drawn]
    assert sum(batch in (32, 128) for batch in batches) / len(batches) > 0.75
    assert set(batches) == {16, 32, 64, 128, 256, 512, 1024}
    assert {values["model.width"] for values in drawn} == {16}  # cannot change in the course of a run


def test_exploration_is_repeated_by_its_generator():
    config = config_of()
    first, second = (explore(config, config, VALUES, np.random.default_rng(3)) for _ in range(2))
    assert first == second


def test_value_outside_the_space_is_drawn_afresh():
    config = config_of()
    values = explore(config, config, VALUES | {"recipe.base_lr": 7.0}, np.random.default_rng(0))
    assert 0.01 <= values["recipe.base_lr"] <= 1


def test_values_that_exclude_each_other_are_not_taken():
    space = {"optimizer.momentum": [0.0, 0.9]}
    base = config_of(space, optimizer__momentum=0.9, optimizer__nesterov=False)
    donor = config_of({}, optimizer__momentum=0.9, optimizer__nesterov=True)  # nesterov needs momentum
    rng = np.random.default_rng(0)
    assert {explore(base, donor, {"optimizer.momentum": 0.9}, rng)["optimizer.momentum"] for _ in range(40)} == {0.9}
    assert {explore(base, base, {"optimizer.momentum": 0.9}, rng)["optimizer.momentum"] for _ in range(40)} == {0, 0.9}
