"""No bias decay: who is decayed."""

import pytest
import torch
from torch import nn
import torchvision

from raytricks.config import load_config
from raytricks.errors import ConfigError
from raytricks.models import resnet
from raytricks.training.optimizer import parameter_groups
from raytricks.tricks.no_bias_decay import split_undecayed


def decay_groups(model, weight_decay, enabled=True):
    """The groups of a run, which this trick splits."""
    settings = {"optimizer.weight_decay": weight_decay, "tricks.no_bias_decay": enabled}
    return parameter_groups(model, load_config(None, settings).config)


def names_by_decay(model, **settings):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = decay_groups(model, 1e-4, **settings)
    return {group["weight_decay"]: [names[id(p)] for p in group["params"]] for group in groups}


@pytest.mark.parametrize("build", [torchvision.models.resnet50, lambda: resnet("resnet50", num_classes=9, variant="B")])
def test_no_bias_decay_splits_resnet50_as_the_paper(build):
    with torch.device("meta"):
        model = build()
    names = names_by_decay(model)
    assert {decay: len(group) for decay, group in names.items()} == {1e-4: 54, 0.0: 107}
    assert set(names[1e-4]) | set(names[0.0]) == {name for name, _ in model.named_parameters()}
    assert not set(names[1e-4]) & set(names[0.0])


def test_no_bias_decay_spares_the_shortcuts_normalisation():
    names = names_by_decay(resnet("resnet8", num_classes=3, width=4))
    assert {"layer2.0.downsample.2.weight", "layer2.0.downsample.2.bias"} <= set(names[0.0])
    assert "layer2.0.downsample.1.weight" in names[1e-4]


def test_no_bias_decay_goes_by_module_type():
    model = nn.ModuleDict(
        {
            "bn_like_convolution": nn.Conv1d(2, 2, 3),
            "prelu": nn.PReLU(3),
            "norm_over_pixels": nn.LayerNorm([4, 4]),
            "groups": nn.GroupNorm(1, 2),
            "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
            "embedding": nn.Embedding(3, 4),
        }
    )
    model.register_parameter("position", nn.Parameter(torch.zeros(1, 4, 4)))
    assert names_by_decay(model)[1e-4] == [
        "bn_like_convolution.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "embedding.weight",
    ]


def test_no_bias_decay_takes_shared_weights_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert names_by_decay(model) == {1e-4: ["0.weight"], 0.0: ["0.bias", "1.bias"]}


def test_no_bias_decay_leaves_frozen_parameters_out():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    assert names_by_decay(model) == {1e-4: ["1.weight"], 0.0: ["1.bias"]}
    model[1].weight.requires_grad_(False)
    assert names_by_decay(model) == {0.0: ["1.bias"]}


def test_no_bias_decay_off_decays_everything_in_one_group():
    model = resnet("resnet8", num_classes=3, width=4)
    assert names_by_decay(model, enabled=False) == {1e-4: [name for name, _ in model.named_parameters()]}


def test_no_bias_decay_moves_only_weights():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(decay_groups(model, 0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), before["0.weight"] * 0.95)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name != "0.weight")


def test_no_bias_decay_rejects_negative_decay():
    with pytest.raises(ConfigError, match=r"optimizer.weight_decay: must be >= 0, got -0.1"):
        decay_groups(nn.Linear(2, 2), -0.1)


def test_no_bias_decay_splits_the_groups_of_other_parts_and_keeps_their_settings():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    groups = [
        {"params": list(model[0].parameters()), "weight_decay": 0.1, "lr_scale": 0.5},
        {"params": [model[1].bias], "weight_decay": 0.2},
        {"params": [model[1].weight], "weight_decay": 0.3},
    ]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    split = [group | {"params": [names[id(p)] for p in group["params"]]} for group in split_undecayed(groups, model)]
    assert split == [
        {"params": ["0.weight"], "weight_decay": 0.1, "lr_scale": 0.5},
        {"params": ["0.bias"], "weight_decay": 0.0, "lr_scale": 0.5},
        {"params": ["1.bias"], "weight_decay": 0.0},
        {"params": ["1.weight"], "weight_decay": 0.3},
    ]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.2, 0.3]  # left alone


@pytest.mark.parametrize("name", ["resnet50d", "mobilenetv3_small_100", "efficientnet_b0", "regnety_002"])
def test_no_bias_decay_splits_as_timm(name):
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_weight_decay

    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    ours = {g["weight_decay"]: {id(p) for p in g["params"]} for g in decay_groups(model, 1e-4)}
    timms = {g["weight_decay"]: {id(p) for p in g["params"]} for g in param_groups_weight_decay(model, 1e-4)}
    assert ours == timms
