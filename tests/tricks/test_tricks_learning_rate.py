"""Linear scaling, warmup, decay and the learning rate of a run, which is multiplied by each of them."""

import math

import pytest
import torch

from raytricks.config import load_config
from raytricks.errors import ConfigError
from raytricks.recipe.recipe import Recipe, make_recipe
from raytricks.tricks.decay import cosine_factor, step_factor
from raytricks.tricks.linear_scaling import peak_learning_rate
from raytricks.tricks.warmup import warmup_factor


@pytest.mark.parametrize(
    ("global_batch_size", "rule", "peak_lr"),
    [
        (256, "linear", 0.1),
        (1024, "linear", 0.4),
        (64, "linear", 0.025),
        (1024, "sqrt", 0.2),
        (64, "sqrt", 0.05),
        (1024, "none", 0.1),
        (1, "linear", 0.1 / 256),
    ],
)
def test_linear_scaling_by_hand(global_batch_size, rule, peak_lr):
    assert peak_learning_rate(0.1, global_batch_size, rule) == pytest.approx(peak_lr, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 256), "base_lr must be > 0, got 0.0"),
        ((math.nan, 256), "base_lr must be > 0, got nan"),
        ((0.1, 0), "global_batch_size must be >= 1, got 0"),
        ((0.1, 256, "cubic"), "rule must be one of linear, sqrt, none, got 'cubic'"),
    ],
)
def test_linear_scaling_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        peak_learning_rate(*arguments)


def test_warmup_starts_above_zero_and_ends_at_the_peak():
    assert [warmup_factor(step, 4) for step in range(1, 7)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmup_factor(1, 1) == 1


def test_warmup_of_zero_steps_is_off():
    assert warmup_factor(1, 0) == 1


def test_warmup_rejects_the_step_before_the_first_and_negative_lengths():
    with pytest.raises(ValueError, match="step must be >= 1"):
        warmup_factor(0, 4)
    with pytest.raises(ValueError, match="warmup_steps must be >= 0, got -1"):
        warmup_factor(1, -1)


def test_decay_cosine_never_climbs_again():
    factors = [cosine_factor(step, 2, 10) for step in range(1, 30)]
    assert factors == sorted(factors, reverse=True)
    assert factors[9] > 0
    assert set(factors[10:]) == {0.0}


def test_decay_cosine_survives_a_run_that_is_all_warmup():
    assert [cosine_factor(step, 3, 3) for step in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("epoch_steps", [1, 7, 5004])
def test_decay_milestones_are_absolute_parts_of_the_run(epoch_steps):
    total_steps = 120 * epoch_steps
    for epoch, drops in ((30, 1), (60, 2), (90, 3)):
        last_before = step_factor(epoch * epoch_steps, total_steps, (0.25, 0.5, 0.75), 0.1)
        first_after = step_factor(epoch * epoch_steps + 1, total_steps, (0.25, 0.5, 0.75), 0.1)
        assert (last_before, first_after) == (0.1 ** (drops - 1), 0.1**drops)


def test_decay_milestones_come_on_time_where_floats_round_up():
    assert 0.07 * 100 > 7
    assert [step_factor(step, 100, (0.07,), 0.5) for step in (7, 8)] == [1, 0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cosine_factor(0, 0, 10), "step must be >= 1"),
        (lambda: cosine_factor(1, 11, 10), r"warmup_steps must be in \[0, total_steps = 10\], got 11"),
        (lambda: cosine_factor(1, 0, 0), "total_steps must be >= 1, got 0"),
        (lambda: step_factor(1, 10, (0.5,), 1.0), r"factor must be in \(0, 1\), got 1.0"),
        (lambda: step_factor(1, 10, (0.5, 1.0), 0.1), r"milestones must be in \[0, 1\), got 1.0"),
    ],
)
def test_decay_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def schedule(total_steps: int = 6, warmup_steps: int = 2, **settings: object) -> Recipe:
    """A run of one step an epoch that reaches a learning rate of 0.8, with 256 images a step unless said otherwise."""
    values = {
        "recipe.global_batch_size": 256,
        "recipe.epochs": total_steps,
        "recipe.base_lr": 0.8,
        "tricks.warmup.epochs": warmup_steps,
    }
    config = load_config(None, values | {key.replace("__", "."): value for key, value in settings.items()}).config
    return make_recipe(config, config.recipe.global_batch_size)


HALF = math.sqrt(0.5)
SCHEDULES = [
    ("cosine", 2, [0.4, 0.8, 0.8, 0.4 * (1 + HALF), 0.4, 0.4 * (1 - HALF)]),
    ("cosine", 0, [0.8, 0.4 * (1 + HALF * 3**0.5 / 2**0.5), 0.6, 0.4, 0.2, 0.4 * (1 - 3**0.5 / 2)]),
    ("step", 2, [0.4, 0.8, 0.8, 0.08, 0.08, 0.008]),
    ("constant", 3, [0.8 / 3, 1.6 / 3, 0.8, 0.8, 0.8, 0.8]),
]


@pytest.mark.parametrize(("kind", "warmup_steps", "expected"), SCHEDULES)
def test_schedule_every_step_by_hand(kind, warmup_steps, expected):
    recipe = schedule(
        6, warmup_steps, tricks__decay__kind=kind, tricks__decay__milestones=(0.5, 5 / 6), tricks__decay__factor=0.1
    )
    lrs = [recipe.lr(step) for step in range(1, 7)]
    assert lrs == pytest.approx(expected, rel=1e-12)


def test_schedule_ends_at_zero_after_the_last_update():
    assert schedule().lr(7) == 0


@pytest.mark.parametrize(("rule", "peak_lr"), [("linear", 3.2), ("sqrt", 1.6), ("none", 0.8)])
def test_schedule_reaches_the_scaled_rate(rule, peak_lr):
    recipe = schedule(recipe__global_batch_size=1024, tricks__lr_scaling=rule)
    assert recipe.peak_lr == recipe.lr(2) == pytest.approx(peak_lr, rel=1e-12)
    assert recipe.lr(5) == pytest.approx(peak_lr / 2, rel=1e-12)


def test_schedule_without_any_trick_is_the_base_rate():
    recipe = schedule(6, 0, tricks__lr_scaling="none", tricks__decay__kind="constant", recipe__global_batch_size=64)
    assert recipe.lr_factors == ()
    assert {recipe.lr(step) for step in range(1, 8)} == {0.8}


@pytest.mark.parametrize("warmup_steps", [2, 5])
def test_schedule_equals_torchs_warmup_then_cosine(warmup_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    schedulers = [
        torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / warmup_steps, total_iters=warmup_steps - 1),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20 - warmup_steps),
    ]
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, schedulers, milestones=[warmup_steps])
    recipe = schedule(20, warmup_steps)
    for step in range(1, 21):
        ours = recipe.lr(step)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step()
        scheduler.step()


def test_schedule_equals_timms_cosine_after_the_warmup():
    scheduler_module = pytest.importorskip("timm.scheduler")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    scheduler = scheduler_module.CosineLRScheduler(
        optimizer, t_initial=15, warmup_t=5, warmup_lr_init=0.8 / 5, warmup_prefix=True, t_in_epochs=False
    )
    recipe = schedule(20, 5)
    for step in range(6, 21):
        scheduler.step_update(step - 1)
        ours = recipe.lr(step)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step


def test_schedule_rejects():
    with pytest.raises(ConfigError, match="recipe.base_lr: must be > 0, got 0"):
        schedule(recipe__base_lr=0)
    with pytest.raises(ConfigError, match="tricks.decay.kind: must be one of cosine, step, constant, got 'poly'"):
        schedule(tricks__decay__kind="poly")
