"""LARS: the layer-wise ratio, and torch's SGD everywhere else."""

import copy
import io

import pytest
import torch
from torch import nn

from raytricks.tricks.lars import Lars, trust_ratios
from raytricks.tricks.no_bias_decay import split_undecayed

LRS = (0.5, 2.0, 1.0, 0.0, 3.0)


def weights_with_gradients(weights, gradients, dtype=torch.float64):
    parameters = [nn.Parameter(torch.tensor(values, dtype=dtype)) for values in weights]
    for parameter, values in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(values, dtype=dtype)
    return parameters


def decay_groups(model, weight_decay):
    return split_undecayed([{"params": list(model.parameters()), "weight_decay": weight_decay}], model)


def small_network(dtype):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 3, 5), nn.Linear(5, 3)
    ).to(dtype)


def train(model, optimizer, lrs=LRS, first_step=0, gradient_scale=1.0):
    """Real gradients, which depend on the weights, and another lr in each step."""
    dtype = next(model.parameters()).dtype
    for step, lr in enumerate(lrs, first_step):
        inputs = torch.randn(8, 2, 5, 5, dtype=dtype, generator=torch.Generator().manual_seed(step))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        (gradient_scale * nn.functional.cross_entropy(model(inputs), torch.arange(8) % 3)).backward()
        optimizer.step()
    return model


def test_lars_ratio_is_by_layer():
    weights = [torch.tensor([3.0, 4.0]), torch.tensor([2.0])]
    gradients = [torch.tensor([0.6, 0.8]), torch.tensor([-4.0])]
    ratios = trust_ratios(weights, gradients, 0.1, 0.2)
    assert [ratio.item() for ratio in ratios] == pytest.approx([0.1 * 5 / (1 + 0.2 * 5), 0.1 * 2 / (4 + 0.2 * 2)])
    assert [ratio.ndim for ratio in ratios] == [0, 0]


# by hand: the norms are 5 and 1, so the ratio is 0.25 and the direction 0.25 * ([0.6, 0.8] + 0.2 * [3, 4]);
# with the lr inside the momentum, the second weights without Nesterov would be [1.86, 2.48]
@pytest.mark.parametrize(
    ("nesterov", "first", "second_gradient", "second"),
    [(False, [2.4, 3.2], [1.2, 1.6], [2.01, 2.68]), (True, [2.1, 2.8], [0.78, 1.04], [1.71, 2.28])],
)
def test_lars_moves_as_computed_by_hand(nesterov, first, second_gradient, second):
    (weight,) = weights_with_gradients([[3.0, 4.0]], [[0.6, 0.8]])
    optimizer = Lars([weight], 2.0, momentum=0.5, nesterov=nesterov, weight_decay=0.2, trust_coefficient=0.1)
    optimizer.step()
    assert weight.tolist() == pytest.approx(first)
    weight.grad = torch.tensor(second_gradient, dtype=torch.float64)
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    assert weight.tolist() == pytest.approx(second)
    assert weight.grad.tolist() == second_gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_lars_without_decay_is_sgd_exactly(momentum, nesterov, dtype):
    ours, theirs = small_network(dtype), small_network(dtype)
    train(ours, Lars(ours.parameters(), 1.0, momentum=momentum, nesterov=nesterov))
    train(theirs, torch.optim.SGD(theirs.parameters(), 1.0, momentum=momentum, nesterov=nesterov))
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(our, their)


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_at_a_ratio_of_one_is_sgd_with_decay(nesterov):
    generator = torch.Generator().manual_seed(0)
    ours = nn.Parameter(torch.randn(7, 3, dtype=torch.float64, generator=generator))
    theirs = nn.Parameter(ours.detach().clone())
    options = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.25}
    lars = Lars([ours], 0.1, trust_coefficient=2.0, **options)
    sgd = torch.optim.SGD([theirs], 0.1, **options)
    for _ in range(4):
        gradient = torch.randn(7, 3, dtype=torch.float64, generator=generator)
        ours.grad = gradient * (2.0 - 0.25) * ours.detach().norm() / gradient.norm()
        theirs.grad = ours.grad.clone()
        lars.step()
        sgd.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_lars_equals_timm(momentum, nesterov, foreach):
    timm_optim = pytest.importorskip("timm.optim")
    ours, theirs = small_network(torch.float64), small_network(torch.float64)
    options = {"momentum": momentum, "nesterov": nesterov}
    train(ours, Lars(decay_groups(ours, 0.01), 1.0, trust_coefficient=0.02, **options))
    # eps=0: timm adds it to the ratio's denominator, the formula has none
    timms = timm_optim.Lars(decay_groups(theirs, 0.01), 1.0, trust_coeff=0.02, eps=0.0, foreach=foreach, **options)
    train(theirs, timms)
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-12)


def test_lars_scales_the_decayed_group_only():
    decayed, undecayed = weights_with_gradients([[3.0, 4.0]] * 2, [[0.6, 0.8]] * 2)
    groups = [{"params": [decayed], "weight_decay": 0.2}, {"params": [undecayed], "weight_decay": 0.0}]
    Lars(groups, 2.0, trust_coefficient=0.1).step()
    assert decayed.tolist() == pytest.approx([2.4, 3.2])
    assert undecayed.tolist() == pytest.approx([1.8, 2.4])


def test_lars_takes_a_ratio_of_one_where_a_norm_is_zero():
    parameters = weights_with_gradients(
        [[0.0, 0.0], [3.0, 4.0], [0.0], [3.0, 4.0]], [[1.0, 2.0], [0.0, 0.0], [0.0], [0.6, 0.8]]
    )
    Lars(parameters, 0.5, weight_decay=0.2, trust_coefficient=0.1).step()
    zero_weight, zero_gradient, zero, ordinary = (parameter.tolist() for parameter in parameters)
    assert zero_weight == pytest.approx([-0.5, -1.0])
    assert zero_gradient == pytest.approx([2.7, 3.6])
    assert zero == [0]
    assert ordinary == pytest.approx([3 - 0.5 * 0.3, 4 - 0.5 * 0.4])


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_lars_does_not_see_the_scale_of_the_loss(factor):
    """The decay is part of the loss: it grows with it."""
    plain, scaled = small_network(torch.float64), small_network(torch.float64)
    for model, scale in ((plain, 1.0), (scaled, factor)):
        weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]  # those that do not start at 0
        optimizer = Lars(weights, 1.0, weight_decay=0.1 * scale, trust_coefficient=0.1)
        train(model, optimizer, gradient_scale=scale)
    for one, other in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_lars_moves_a_layer_by_at_most_its_part():
    generator = torch.Generator().manual_seed(1)
    for size in (1, 10, 1000):
        weight = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64))
        weight.grad = torch.randn(size, generator=generator, dtype=torch.float64) * 100
        before = weight.detach().clone()
        Lars([weight], 3.0, momentum=0.0, weight_decay=1e-6, trust_coefficient=0.01).step()
        assert ((weight - before).norm() / before.norm()).item() == pytest.approx(0.03, rel=1e-5)


def test_lars_skips_parameters_without_gradients():
    used, unused = weights_with_gradients([[1.0], [1.0]], [[1.0], [1.0]])
    unused.grad = None
    optimizer = Lars([used, unused], 0.1, weight_decay=0.1)
    optimizer.step()
    assert unused.item() == 1
    assert list(optimizer.state) == [used]
    used.grad = None
    optimizer.step()


@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_lars_resumes_bit_for_bit(steps_before):
    straight = small_network(torch.float32)
    train(straight, Lars(decay_groups(straight, 0.01), 1.0, nesterov=True))
    first = small_network(torch.float32)
    optimizer = Lars(decay_groups(first, 0.01), 1.0, nesterov=True)
    train(first, optimizer, LRS[:steps_before])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    second = copy.deepcopy(first)
    resumed = Lars(decay_groups(second, 0.01), 1.0, nesterov=True)
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    train(second, resumed, LRS[steps_before:], first_step=steps_before)
    for one, other in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_lars_never_waits_for_the_device():
    """A meta tensor has no value: reading one on the host would raise."""
    weights = [nn.Parameter(torch.zeros(size, device="meta")) for size in (3, 5)]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer = Lars(weights, 0.1, nesterov=True, weight_decay=0.1)
    optimizer.step()
    optimizer.step()


def test_lars_is_left_out_by_the_scaler_when_a_gradient_overflows():
    (weight,) = weights_with_gradients([[3.0, 4.0]], [[0.0, 0.0]], torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = Lars([weight], 2.0, weight_decay=0.2, trust_coefficient=0.1)
    for factors, expected in (([float("inf"), 1.0], [3.0, 4.0]), ([0.6, 0.8], [2.4, 3.2])):
        optimizer.zero_grad()
        scaler.scale((weight * torch.tensor(factors)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert weight.tolist() == pytest.approx(expected)


def test_lars_calls_the_closure_with_gradients_on():
    (weight,) = weights_with_gradients([[3.0, 4.0]], [[0.0, 0.0]])
    optimizer = Lars([weight], 2.0, weight_decay=0.2, trust_coefficient=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (weight * torch.tensor([0.6, 0.8])).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(5.0)
    assert weight.tolist() == pytest.approx([2.4, 3.2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -0.1}, r"lr must be in \[0, inf\), got -0.1"),
        ({"lr": float("nan")}, r"lr must be in \[0, inf\), got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1e-4}, r"weight_decay must be in \[0, inf\), got -0.0001"),
        ({"trust_coefficient": 0.0}, r"trust_coefficient must be in \(0, inf\), got 0.0"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs momentum > 0"),
    ],
)
def test_lars_rejects_settings(settings, message):
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=message):
        Lars([weight], **{"lr": 0.1, **settings})
    with pytest.raises(ValueError, match=message):
        Lars([{"params": [weight], **settings}], 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lars_rejects_half_precision_weights(dtype):
    with pytest.raises(ValueError, match=f"must be float32 or float64, got {dtype}"):
        Lars([nn.Parameter(torch.ones(2, dtype=dtype))], 0.1)
