"""Buffers as they were: batch-norm statistics survive a step that overflowed, and one that did not fit."""

import math

import pytest
import torch
from torch import nn

from raytricks.training.restoring import BufferSnapshot


def test_snapshot_puts_back_the_statistics_of_a_poisoned_forward_pass():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    model(torch.randn(4, 2, 3, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    snapshot = BufferSnapshot(model)
    snapshot.remember()
    model(torch.full((4, 2, 3, 3), math.inf))
    assert not model[0].running_mean.isfinite().all()
    snapshot.restore_unless(torch.tensor(False))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, before[name]), name


def test_snapshot_lets_a_good_step_through():
    model = nn.BatchNorm2d(2)
    snapshot = BufferSnapshot(model)
    snapshot.remember()
    model(torch.randn(4, 2, 3, 3) + 5)
    moved = model.running_mean.clone()
    snapshot.restore_unless(torch.tensor(True))
    assert torch.equal(model.running_mean, moved)
    assert moved.abs().min() > 0.1


@pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan])
def test_snapshot_keeps_a_non_finite_statistic_out_even_of_a_good_step(poison):
    model = nn.BatchNorm2d(2)
    snapshot = BufferSnapshot(model)
    snapshot.remember()
    model.running_var[0] = poison
    model.running_var[1] = 3.0
    snapshot.restore_unless(torch.tensor(True))
    assert model.running_var.tolist() == [1.0, 3.0]


def test_snapshot_restores_every_buffer_of_every_type():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(3).double())
    model[0](torch.randn(4, 2, 3, 3))
    before = {name: value.clone() for name, value in model.named_buffers()}
    snapshot = BufferSnapshot(model)
    snapshot.remember()
    model[0](torch.randn(4, 2, 3, 3))
    model[1](torch.randn(4, 3, 3, 3).double())
    assert all(not torch.equal(value, before[name]) for name, value in model.named_buffers())
    snapshot.restore()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model[0].num_batches_tracked == 1 and model[1].running_mean.dtype == torch.float64


def test_snapshot_counts_a_step_that_overflowed():
    """The counter is of the forward passes; only what is a statistic goes back."""
    model = nn.BatchNorm2d(2)
    snapshot = BufferSnapshot(model)
    snapshot.remember()
    model(torch.full((4, 2, 3, 3), math.inf))
    snapshot.restore_unless(torch.tensor(False))
    assert model.num_batches_tracked == 1 and model.running_mean.tolist() == [0.0, 0.0]


def test_snapshot_of_a_model_without_buffers_does_nothing():
    snapshot = BufferSnapshot(nn.Linear(2, 2))
    snapshot.remember()
    snapshot.restore()
    snapshot.restore_unless(torch.tensor(False))
