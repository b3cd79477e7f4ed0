"""Muon against torch's own on matrices, its orthogonal step, convolutions in either memory format."""

import pytest
import torch
from torch import nn

from raytricks.config import load_config
from raytricks.tricks.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_torch_on_matrices(shape, nesterov):
    torch.manual_seed(1)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], 0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    torchs = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    for _ in range(4):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        torchs.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=2e-4)  # bf16 inside, products in another order


def test_muon_step_has_singular_values_near_one():
    torch.manual_seed(2)
    values = torch.linalg.svdvals(orthogonal(torch.randn(16, 40)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_treats_a_kernel_alike_in_either_memory_format():
    torch.manual_seed(3)
    start, gradient = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    moved = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(start.clone().to(memory_format=layout))
        weight.grad = gradient.clone().to(memory_format=layout)
        Muon([weight], 0.1).step()
        moved.append(weight.detach().contiguous())
    torch.testing.assert_close(*moved, rtol=1e-2, atol=1e-3)
    step = (start - moved[0]).flatten(1) / 0.1
    assert torch.linalg.svdvals(step).max() < 1.3


def test_muon_leaves_vectors_to_momentum():
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([1.0, -2.0, 0.0])
    Muon([weight], 0.5, momentum=0.9, nesterov=False, weight_decay=0.3).step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.05, 0.1, 0.0]))


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -0.1}])
def test_muon_rejects_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Muon([nn.Parameter(torch.zeros(2))], **{"lr": 0.1, **wrong})


def test_muon_is_chosen_with_its_own_settings():
    optimizer = load_config(None, {"optimizer.name": "muon", "optimizer.momentum": 0.9}).config.optimizer
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)
