"""Gradient clipping by the global norm."""

import pytest
import torch
from torch import nn

from raytricks.tricks.gradient_clipping import clip_by_norm, global_norm


def parameters_with_gradients(*gradients):
    parameters = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


def test_clipping_norm_is_of_all_gradients_together():
    parameters = parameters_with_gradients([3.0, 0.0], [0.0, 4.0])
    norm = global_norm(parameters + [nn.Parameter(torch.ones(5))])
    assert norm.ndim == 0
    assert norm.item() == pytest.approx(5)


def test_clipping_scales_to_the_limit_and_keeps_the_direction():
    parameters = parameters_with_gradients([3.0], [4.0])
    clip_by_norm(parameters, global_norm(parameters), 1.0)
    assert [p.grad.item() for p in parameters] == pytest.approx([0.6, 0.8], rel=1e-5)


def test_clipping_leaves_small_gradients_alone():
    parameters = parameters_with_gradients([3.0], [4.0])
    clip_by_norm(parameters, global_norm(parameters), 6.0)
    assert [p.grad.item() for p in parameters] == [3, 4]


def test_clipping_shows_non_finite_gradients_in_the_norm():
    assert not global_norm(parameters_with_gradients([1.0], [float("inf")])).isfinite()


def test_clipping_without_gradients_does_nothing():
    parameters = [nn.Parameter(torch.ones(2))]
    norm = global_norm(iter(parameters))
    assert norm.item() == 0
    clip_by_norm(parameters, norm, 1.0)
    assert parameters[0].grad is None


def test_clipping_rejects_the_limit():
    with pytest.raises(ValueError, match="clip_norm must be > 0, got 0"):
        clip_by_norm([], torch.tensor(1.0), 0)
