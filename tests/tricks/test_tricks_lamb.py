"""LAMB: the layer-wise ratio, and Adam everywhere else."""

import copy
import io

import pytest
import torch
from torch import nn

from raytricks.tricks.lamb import Lamb
from raytricks.tricks.no_bias_decay import split_undecayed

LRS = (0.01, 0.1, 0.05, 0.0, 0.2)


def weight_with_gradient(values, gradient):
    weight = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    weight.grad = torch.tensor(gradient, dtype=torch.float64)
    return weight


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


def test_lamb_moves_as_computed_by_hand():
    # first: r = g / (|g| + 1) = [0.2, 0.5], the step r + 0.1 * w = [0.6, 0.8] of norm 1, the ratio 5 / 1;
    # second: r = [0.5625, 0.375] / 0.75 / (sqrt([0.26171875, 0.203125] / 0.4375) + 1), the ratio 4.66583
    weight = weight_with_gradient([4.0, 3.0], [0.25, 1.0])
    optimizer = Lamb([weight], 0.1, betas=(0.5, 0.75), epsilon=1.0, weight_decay=0.1)
    optimizer.step()
    assert weight.tolist() == pytest.approx([3.7, 2.6])
    weight.grad = torch.tensor([1.0, 0.25], dtype=torch.float64)
    optimizer.step()
    assert weight.tolist() == pytest.approx([3.3300431509, 2.3399386037], rel=1e-9)
    assert weight.grad.tolist() == [1.0, 0.25]


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5)])
def test_lamb_without_decay_is_adam(betas):
    ours, theirs = small_network(torch.float64), small_network(torch.float64)
    train(ours, Lamb(ours.parameters(), 1.0, betas=betas, epsilon=1e-3))
    train(theirs, torch.optim.Adam(theirs.parameters(), 1.0, betas=betas, eps=1e-3))
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.8)])
def test_lamb_equals_timm(betas, foreach):
    timm_optim = pytest.importorskip("timm.optim")
    ours, theirs = small_network(torch.float64), small_network(torch.float64)
    train(ours, Lamb(decay_groups(ours, 0.01), 1.0, betas=betas, epsilon=1e-4))
    # max_grad_norm=None: timm clips the whole gradient inside the optimizer otherwise
    timms = timm_optim.Lamb(decay_groups(theirs, 0.01), 1.0, betas=betas, eps=1e-4, max_grad_norm=None, foreach=foreach)
    train(theirs, timms)
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-12)


def test_lamb_scales_the_decayed_group_only():
    decayed, undecayed = (weight_with_gradient([4.0, 3.0], [0.25, 1.0]) for _ in range(2))
    groups = [{"params": [decayed], "weight_decay": 0.1}, {"params": [undecayed], "weight_decay": 0.0}]
    Lamb(groups, 0.1, epsilon=1.0).step()
    assert decayed.tolist() == pytest.approx([3.7, 2.6])
    assert undecayed.tolist() == pytest.approx([3.98, 2.95])


def test_lamb_takes_a_ratio_of_one_where_a_norm_is_zero():
    zero_weight = weight_with_gradient([0.0, 0.0], [1.0, -3.0])
    zero = weight_with_gradient([0.0], [0.0])
    cancelled = weight_with_gradient([4.0], [-1.0])  # r = -0.5, the decay of 0.125 * 4 undoes it
    ordinary = weight_with_gradient([4.0, 3.0], [0.5, 0.0])
    Lamb([zero_weight, zero, cancelled, ordinary], 0.1, epsilon=1.0, weight_decay=0.125).step()
    assert zero_weight.tolist() == pytest.approx([-0.05, 0.075])
    assert zero.tolist() == [0]
    assert cancelled.tolist() == pytest.approx([4])
    assert (ordinary.detach() - torch.tensor([4.0, 3.0])).norm().item() == pytest.approx(0.5)


def test_lamb_shrinks_a_layer_without_gradient_by_the_lr():
    weight = weight_with_gradient([4.0, 3.0], [0.0, 0.0])
    Lamb([weight], 0.1, weight_decay=0.01).step()
    assert weight.tolist() == pytest.approx([3.6, 2.7])


def test_lamb_moves_a_layer_by_its_norm():
    model = small_network(torch.float64)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    train(model, Lamb(model.parameters(), 1.0, weight_decay=0.1), lrs=[0.03])
    for parameter, start in zip(model.parameters(), before, strict=True):
        if start.any():
            assert ((parameter - start).norm() / start.norm()).item() == pytest.approx(0.03)


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_lamb_does_not_see_the_scale_of_the_loss(factor):
    plain, scaled = small_network(torch.float64), small_network(torch.float64)
    train(plain, Lamb(decay_groups(plain, 0.1), 1.0, epsilon=1e-20))
    train(scaled, Lamb(decay_groups(scaled, 0.1), 1.0, epsilon=1e-20), gradient_scale=factor)
    # the bias before batch normalisation has a gradient of rounding errors only
    for name, weight in scaled.named_parameters():
        if name != "0.bias":
            torch.testing.assert_close(weight, plain.get_parameter(name), rtol=1e-6, atol=1e-8)


def test_lamb_counts_the_steps_of_each_parameter():
    """A parameter that gets its first gradient late is corrected as in a first step."""
    early, late = (weight_with_gradient([4.0, 3.0], [0.25, 1.0]) for _ in range(2))
    late.grad = None
    optimizer = Lamb([early, late], 0.1, epsilon=1.0, weight_decay=0.1)
    optimizer.step()
    optimizer.step()
    assert late.tolist() == [4, 3]
    late.grad = torch.tensor([0.25, 1.0], dtype=torch.float64)
    early.grad = None
    optimizer.step()
    assert late.tolist() == pytest.approx([3.7, 2.6])
    assert [optimizer.state[weight]["step"] for weight in (early, late)] == [2, 1]
    late.grad = None
    optimizer.step()


@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_lamb_resumes_bit_for_bit(steps_before):
    straight = small_network(torch.float32)
    train(straight, Lamb(decay_groups(straight, 0.01), 1.0))
    first = small_network(torch.float32)
    optimizer = Lamb(decay_groups(first, 0.01), 1.0)
    train(first, optimizer, LRS[:steps_before])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    second = copy.deepcopy(first)
    resumed = Lamb(decay_groups(second, 0.01), 1.0)
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    train(second, resumed, LRS[steps_before:], first_step=steps_before)
    for one, other in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_lamb_never_waits_for_the_device():
    """A meta tensor has no value: reading one on the host would raise."""
    weights = [nn.Parameter(torch.zeros(size, device="meta")) for size in (3, 5)]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer = Lamb(weights, 0.1, weight_decay=0.1)
    optimizer.step()
    optimizer.step()


def test_lamb_is_left_out_by_the_scaler_when_a_gradient_overflows():
    weight = nn.Parameter(torch.tensor([4.0, 3.0]))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = Lamb([weight], 0.1, epsilon=1.0, weight_decay=0.1)
    for factors, expected in (([float("inf"), 1.0], [4.0, 3.0]), ([0.25, 1.0], [3.7, 2.6])):
        optimizer.zero_grad()
        scaler.scale((weight * torch.tensor(factors)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert weight.tolist() == pytest.approx(expected)
    assert optimizer.state[weight]["step"] == 1


def test_lamb_calls_the_closure_with_gradients_on():
    weight = weight_with_gradient([4.0, 3.0], [0.0, 0.0])
    optimizer = Lamb([weight], 0.1, epsilon=1.0, weight_decay=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (weight * torch.tensor([0.25, 1.0])).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(4.0)
    assert weight.tolist() == pytest.approx([3.7, 2.6])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -0.1}, r"lr must be in \[0, inf\), got -0.1"),
        ({"lr": float("nan")}, r"lr must be in \[0, inf\), got nan"),
        ({"weight_decay": -1e-4}, r"weight_decay must be in \[0, inf\), got -0.0001"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers in \[0, 1\), got \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, r"betas must be two numbers in \[0, 1\), got \(-0.1, 0.9\)"),
        ({"betas": (0.9,)}, r"betas must be two numbers"),
        ({"epsilon": 0.0}, r"epsilon must be in \(0, inf\), got 0.0"),
    ],
)
def test_lamb_rejects_settings(settings, message):
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=message):
        Lamb([weight], **{"lr": 0.1, **settings})
    with pytest.raises(ValueError, match=message):
        Lamb([{"params": [weight], **settings}], 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lamb_rejects_half_precision_weights(dtype):
    with pytest.raises(ValueError, match=f"must be float32 or float64, got {dtype}"):
        Lamb([nn.Parameter(torch.ones(2, dtype=dtype))], 0.1)
