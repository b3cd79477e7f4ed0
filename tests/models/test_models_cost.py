"""Parameters and multiply-accumulates."""

import pytest
import torch
from torch import nn

from raytricks.models import count_macs, count_parameters, resnet
from raytricks.models.cost import count_activation_bytes


@pytest.mark.parametrize(
    ("variant", "giga_macs", "millions"),
    [("A", 3.858, 25.557), ("B", 4.089, 25.557), ("C", 4.329, 25.576), ("D", 4.329, 25.576)],
)
def test_cost_of_resnet50_is_the_papers(variant, giga_macs, millions):
    with torch.device("meta"):
        model = resnet("resnet50", num_classes=1000, variant=variant)
    assert count_macs(model, (3, 224, 224)) / 1e9 == pytest.approx(giga_macs, abs=5e-4)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_cost_counts_by_hand():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    assert count_macs(model, (2, 4, 4)) == 4 * (2 * 2) * (1 * 9) + 16 * 5
    model[0].weight.requires_grad_(False)
    assert count_parameters(model) == 4 + (4 + 4) + (16 * 5 + 5)


def test_cost_in_activations_counts_by_hand():
    """What each layer keeps: the input of a convolution and of a linear layer, the output of a ReLU; once each."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    fp32 = 4
    assert count_activation_bytes(model, (3, 8, 8)) == fp32 * (3 * 64 + 4 * 36)


def test_cost_counting_leaves_the_model_and_the_random_state_alone():
    model = nn.Sequential(resnet("resnet8", num_classes=3, width=4, stem="small"), nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    count_macs(model, (3, 8, 8))
    assert torch.equal(random_state, torch.get_rng_state())
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
