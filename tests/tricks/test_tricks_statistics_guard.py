"""Batch-norm statistics survive a step that overflowed."""

import math

import pytest
import torch
from torch import nn

from raytricks.tricks.statistics_guard import StatisticsGuard


def test_guard_puts_back_the_statistics_of_a_poisoned_forward_pass():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    model(torch.randn(4, 2, 3, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    guard = StatisticsGuard(model)
    guard.remember()
    model(torch.full((4, 2, 3, 3), math.inf))
    assert not model[0].running_mean.isfinite().all()
    guard.restore_unless(torch.tensor(False))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, before[name]), name


def test_guard_lets_a_good_step_through():
    model = nn.BatchNorm2d(2)
    guard = StatisticsGuard(model)
    guard.remember()
    model(torch.randn(4, 2, 3, 3) + 5)
    moved = model.running_mean.clone()
    guard.restore_unless(torch.tensor(True))
    assert torch.equal(model.running_mean, moved)
    assert moved.abs().min() > 0.1


@pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan])
def test_guard_keeps_a_non_finite_statistic_out_even_of_a_good_step(poison):
    model = nn.BatchNorm2d(2)
    guard = StatisticsGuard(model)
    guard.remember()
    model.running_var[0] = poison
    model.running_var[1] = 3.0
    guard.restore_unless(torch.tensor(True))
    assert model.running_var.tolist() == [1.0, 3.0]
