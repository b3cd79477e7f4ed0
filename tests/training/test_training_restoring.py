"""Optimizer and scaler are restored under other hardware settings."""

import copy

import pytest
import torch
from torch import nn

from raytricks.training.restoring import load_optimizer_state, load_scaler_state


def _step(model, optimizer, seed):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layouts", [(True, False), (False, True)])
def test_optimizer_state_follows_its_parameters_to_another_memory_layout(layouts, fused):
    torch.manual_seed(0)
    formats = [torch.channels_last if is_last else torch.contiguous_format for is_last in layouts]
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)).to(memory_format=formats[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
    _step(model, optimizer, 0)
    resumed = copy.deepcopy(model).to(memory_format=formats[1])
    other = torch.optim.SGD(resumed.parameters(), lr=0.1, momentum=0.9, fused=fused)
    load_optimizer_state(other, copy.deepcopy(optimizer.state_dict()))
    for parameter in resumed.parameters():
        assert other.state[parameter]["momentum_buffer"].stride() == parameter.stride()
    _step(model, optimizer, 1)
    _step(resumed, other, 1)
    for expected, got in zip(model.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_scaler_state_of_a_run_without_a_scaler_is_skipped():
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    load_scaler_state(scaler, torch.amp.GradScaler("cpu", enabled=False).state_dict())
    assert scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale()
