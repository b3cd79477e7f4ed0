"""The optimizer that a config names, over the groups that its parts make."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from raytricks.config import ExperimentConfig
from raytricks.config.schemas import schema_for
from raytricks.parts import Hooks, Part, Setting
from raytricks.training.optimizer import build_optimizer, change_settings, parameter_groups
from raytricks.tricks.lamb import Lamb
from raytricks.tricks.lars import Lars

Groups = list[dict[str, Any]]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def config_with(groups: Callable[..., Groups], **optimizer: object) -> ExperimentConfig:
    """A config with a part of the user's own that makes parameter groups."""
    part = Part(
        kind="trick",
        name="layer_lr",
        title="layer lr",
        source="-",
        code=Hooks(groups=groups),
        settings=Setting(annotation=bool, default=False, doc="A switch."),
        on={"": True},
        off={"": False},
    )
    schema = schema_for({"optimizer.name": optimizer.get("name", "sgd")}, [part])
    return schema.model_validate({"tricks": {"layer_lr": True}, "optimizer": optimizer})


def loses_one(groups: Groups) -> Groups:
    return [group | {"params": group["params"][1:]} for group in groups[:1]] + groups[1:]


def takes_one_twice(groups: Groups) -> Groups:
    return [*groups, groups[0] | {"params": groups[0]["params"][:1]}]


def brings_one(groups: Groups) -> Groups:
    return [*groups, groups[0] | {"params": [nn.Parameter(torch.zeros(1))]}]


@pytest.mark.parametrize("groups", [loses_one, takes_one_twice, brings_one, lambda groups: []])
def test_groups_of_a_part_that_loses_or_doubles_a_parameter_are_refused(groups):
    message = r"^tricks.layer_lr: every trainable parameter must be in exactly one group$"
    with pytest.raises(ValueError, match=message):
        parameter_groups(network(), config_with(groups))
    with pytest.raises(ValueError, match=message):
        build_optimizer(network(), config_with(groups))


def halves_the_first_layer(groups: Groups, model: nn.Sequential) -> Groups:
    first = {id(parameter) for parameter in model[0].parameters()}
    split = []
    for group in groups:
        for is_first, scale in ((True, 0.5), (False, 1.0)):
            params = [parameter for parameter in group["params"] if (id(parameter) in first) == is_first]
            split.append(group | {"params": params, "lr_scale": scale})
    return [group for group in split if group["params"]]


@pytest.mark.parametrize("name", ["sgd", "lars", "lamb", "adamw"])
def test_groups_of_a_part_stand_beside_those_without_decay(name):
    model = network()
    config = config_with(halves_the_first_layer, name=name, weight_decay=0.1)
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, {"sgd": torch.optim.SGD, "lars": Lars, "lamb": Lamb, "adamw": torch.optim.AdamW}[name])
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = [
        (group["lr_scale"], group["weight_decay"], [names[id(p)] for p in group["params"]])
        for group in optimizer.param_groups
    ]
    assert groups == [
        (0.5, 0.1, ["0.weight"]),
        (1.0, 0.1, ["2.weight"]),
        (0.5, 0.0, ["0.bias"]),
        (1.0, 0.0, ["1.weight", "1.bias", "2.bias"]),
    ]
    change_settings(optimizer, model, config_with(halves_the_first_layer, name=name, weight_decay=0.2))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.2, 0.0, 0.0]
    assert [group["lr_scale"] for group in optimizer.param_groups] == [0.5, 1.0, 0.5, 1.0]


def test_change_of_settings_leaves_the_learning_rate_of_the_step():
    config = ExperimentConfig()
    model = network()
    optimizer = build_optimizer(model, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.123
    change_settings(optimizer, model, config)
    assert {group["lr"] for group in optimizer.param_groups} == {0.123}
