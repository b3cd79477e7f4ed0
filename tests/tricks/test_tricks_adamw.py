"""AdamW as a part: torch's own arithmetic over our groups, and its settings."""

import pytest
import torch
from torch import nn

from raytricks.config import load_config
from raytricks.errors import ConfigError
from raytricks.training.optimizer import build_optimizer, change_settings

ADAMW = {"optimizer.name": "adamw", "optimizer.weight_decay": 0.05, "recipe.base_lr": 0.01}


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 3))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[torch.Tensor]:
    torch.manual_seed(7)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_adamw_equals_torch_over_decayed_and_undecayed_groups():
    ours, theirs = net(), net()
    config = load_config(None, ADAMW | {"optimizer.betas": [0.8, 0.95], "optimizer.epsilon": 1e-6}).config
    weights = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    expected = steps(theirs, plain, 5)
    for mine, torchs in zip(steps(ours, build_optimizer(ours, config), 5), expected, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-7)


def test_adamw_decay_is_decoupled_from_the_gradient():
    """Without a gradient a weight shrinks by lr * decay a step: closed form."""
    model = nn.Linear(2, 2, bias=False)
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, load_config(None, ADAMW).config)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.01 * 0.05))


def test_adamw_goes_on_with_changed_settings_and_keeps_its_averages():
    model = net()
    optimizer = build_optimizer(model, load_config(None, ADAMW).config)
    steps(model, optimizer, 2)
    averages = [state["exp_avg"].clone() for state in optimizer.state.values()]
    change_settings(optimizer, model, load_config(None, ADAMW | {"optimizer.betas": [0.5, 0.9]}).config)
    assert all(group["betas"] == (0.5, 0.9) for group in optimizer.param_groups)
    kept = [state["exp_avg"] for state in optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(averages, kept, strict=True))


@pytest.mark.parametrize("key", ["optimizer.momentum", "optimizer.trust_coefficient"])
def test_adamw_refuses_the_settings_of_other_optimizers(key):
    with pytest.raises(ConfigError, match=rf"{key} is a setting of .*optimizer.name is adamw"):
        load_config(None, ADAMW | {key: 0.5})
