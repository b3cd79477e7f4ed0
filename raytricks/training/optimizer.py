"""The optimizer that a config names, over the parameter groups that its parts make."""

from typing import Any

import torch
from torch import nn

from raytricks.config.schema import ExperimentConfig
from raytricks.errors import ConfigError
from raytricks.recipe.chain import Chain, chosen_call, has_slot


def build_optimizer(model: nn.Module, config: ExperimentConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a model's trainable parameters; the lr is set before each step."""
    optimizer = _fresh(model, config)
    _renew(optimizer, config)
    return optimizer


def change_settings(optimizer: torch.optim.Optimizer, model: nn.Module, config: ExperimentConfig) -> None:
    """Have an optimizer of the same kind go on with a config's settings; what it has averaged stays."""
    for group, of_config in zip(optimizer.param_groups, _fresh(model, config).param_groups, strict=True):
        group.update({name: value for name, value in of_config.items() if name not in ("params", "lr")})
    _renew(optimizer, config)


def _fresh(model: nn.Module, config: ExperimentConfig) -> torch.optim.Optimizer:
    build, groups = chosen_call(config, "optimizer", "build"), parameter_groups(model, config)
    try:
        return build(groups=groups, lr=config.recipe.base_lr)
    except (TypeError, ValueError) as error:
        if build.part.origin == "raytricks":
            raise
        reason = str(error).splitlines()[0]  # such as that of torch.optim:Muon, which takes matrices alone
        raise ConfigError(f"optimizer.name: {build.part.name}: {reason}") from error


def _renew(optimizer: torch.optim.Optimizer, config: ExperimentConfig) -> None:
    if has_slot(config, "optimizer", "changed"):
        chosen_call(config, "optimizer", "changed")(optimizer=optimizer)


def parameter_groups(model: nn.Module, config: ExperimentConfig) -> list[dict[str, Any]]:
    """Return the groups of the trainable parameters; each is in exactly one, and a shared one is taken once.

    Raises:
        ValueError: a part has lost a parameter, or put one into two groups.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trainable, "weight_decay": config.optimizer.weight_decay}]
    for call in Chain(config).calls("groups"):
        groups = call(groups=groups, model=model)
        ids = [id(parameter) for group in groups for parameter in group["params"]]
        if len(ids) != len(set(ids)) or set(ids) != {id(parameter) for parameter in trainable}:
            raise ValueError(f"{call.part.place}: every trainable parameter must be in exactly one group")
    return groups
