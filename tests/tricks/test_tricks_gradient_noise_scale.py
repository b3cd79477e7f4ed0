"""The gradient noise scale in closed form, and on a problem whose noise is known."""

import pytest
import torch
from torch import nn

from raytricks.tricks.gradient_noise_scale import noise_scale, squared_gradient_norm


@pytest.mark.parametrize(("true_square", "noise", "small", "large"), [(4.0, 100.0, 8, 64), (1.0, 0.5, 1, 2)])
def test_noise_scale_solves_its_two_equations(true_square, noise, small, large):
    squares = [true_square + noise / batch for batch in (small, large)]
    assert noise_scale(*squares, 1 / small, 1 / large) == pytest.approx(noise / true_square)


def test_noise_scale_equals_the_papers_formula():
    b, big_b, small_square, large_square = 16, 128, 3.7, 1.9
    true_square = (big_b * large_square - b * small_square) / (big_b - b)
    noise = (small_square - large_square) / (1 / b - 1 / big_b)
    assert noise_scale(small_square, large_square, 1 / b, 1 / big_b) == pytest.approx(noise / true_square)


def test_noise_scale_without_noise_is_zero():
    assert noise_scale(2.0, 2.0, 1 / 8, 1 / 16) == 0
    assert noise_scale(1.9, 2.0, 1 / 8, 1 / 16) == 0  # an estimate below zero means none was seen


def test_noise_scale_is_unknown_when_noise_hides_the_gradient():
    assert noise_scale(2.0, 1.0, 1 / 8, 1 / 16) is None  # |g|^2 falls as 1/b: nothing but noise


def test_noise_scale_rejects_batches_that_do_not_differ():
    with pytest.raises(ValueError, match="exceed"):
        noise_scale(1.0, 1.0, 1 / 8, 1 / 8)


def test_noise_scale_finds_the_known_noise_of_a_linear_model():
    """Gradients drawn as G + e, e ~ N(0, I): tr(Sigma) is the dimension, |G|^2 is chosen."""
    torch.manual_seed(0)
    dimension, small, large = 50, 4, 32
    true_gradient = torch.full((dimension,), 0.5)
    weights = nn.Parameter(torch.zeros(dimension))
    squares = torch.zeros(2)
    for _ in range(2000):
        losses = (true_gradient + torch.randn(large, dimension)) @ weights
        squares[0] += squared_gradient_norm(losses[:small].mean(), [weights]).detach()
        squares[1] += squared_gradient_norm(losses.mean(), [weights]).detach()
    squares /= 2000
    expected = dimension / float(true_gradient.square().sum())
    assert noise_scale(*squares.tolist(), 1 / small, 1 / large) == pytest.approx(expected, rel=0.05)


def test_squared_gradient_norm_leaves_graph_and_gradients_alone():
    model = nn.Linear(3, 2)
    unused = nn.Parameter(torch.ones(1))
    losses = model(torch.ones(4, 3)).square().sum(1)
    square = squared_gradient_norm(losses[:2].mean(), [*model.parameters(), unused])
    assert all(p.grad is None for p in model.parameters())
    losses.mean().backward()  # the graph is still there, and equal images give equal gradients
    assert float(square) == pytest.approx(sum(float(p.grad.square().sum()) for p in model.parameters()), rel=1e-5)
