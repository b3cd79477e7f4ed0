"""The average of the weights in numbers and against torch's AveragedModel."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raytricks.tricks.ema import WeightAverage, average_decay


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_average_decay_rises_to_its_value():
    assert [average_decay(0.9, step) for step in (1, 2, 8, 10**6)] == pytest.approx([2 / 11, 3 / 12, 0.5, 0.9])
    assert average_decay(0.0, 5) == 0


@pytest.mark.parametrize("arguments", [(1.0, 1), (-0.1, 1), (0.9, 0)])
def test_average_decay_rejects_what_is_out_of_range(arguments):
    with pytest.raises(ValueError, match="must be"):
        average_decay(*arguments)


def test_average_is_the_hand_computed_value():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model)
    nn.init.constant_(model.weight, 3.0)
    average.update(0.75)
    assert average.module.weight.item() == 0.75 * 1 + 0.25 * 3
    average.update(0.75)
    assert average.module.weight.item() == 0.75 * 1.5 + 0.25 * 3


def test_average_equals_torchs_with_buffers():
    model = small_model()
    ours, theirs = WeightAverage(model), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    theirs.update_parameters(model)  # its first update copies
    for _ in range(5):
        model(torch.randn(4, 1, 4, 4))  # moves the running statistics
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        ours.update(0.8)
        theirs.update_parameters(model)
    for (name, mine), torchs in zip(ours.module.state_dict().items(), theirs.module.state_dict().values(), strict=True):
        if name.endswith("num_batches_tracked"):
            assert mine == 5
        else:
            torch.testing.assert_close(mine, torchs, msg=name)


def test_average_moves_tied_weights_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    ours, theirs = WeightAverage(model), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    theirs.update_parameters(model)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        ours.update(0.8)
        theirs.update_parameters(model)
    for mine, torchs in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(mine, torchs)


def test_average_includes_the_running_statistics():
    model = small_model()
    average = WeightAverage(model)
    model[1].running_mean.fill_(1.0)
    average.update(0.5)
    assert average.module[1].running_mean.tolist() == [0.5, 0.5]


def test_average_leaves_the_model_and_its_gradients_alone():
    model = small_model()
    before = [p.clone() for p in model.parameters()]
    average = WeightAverage(model)
    average.update(0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not any(p.requires_grad for p in average.module.parameters())
    assert not average.module.training
    assert model.training


def test_average_follows_a_model_whose_state_was_loaded():
    model, other = small_model(), small_model()
    average = WeightAverage(model)
    nn.init.constant_(other[3].bias, 7.0)
    model.load_state_dict(other.state_dict())
    average.update(0.0)
    assert average.module[3].bias.tolist() == [7.0] * 3
