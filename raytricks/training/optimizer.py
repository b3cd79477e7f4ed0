"""The optimizer that a config names, over its groups with and without weight decay."""

from typing import Any

import torch
from torch import nn

from raytricks.config.schema import ExperimentConfig, OptimizerConfig
from raytricks.tricks.lamb import Lamb
from raytricks.tricks.lars import Lars
from raytricks.tricks.no_bias_decay import decay_groups


def build_optimizer(model: nn.Module, config: ExperimentConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a model's trainable parameters; the lr is set before each step."""
    options, lr = config.optimizer, config.recipe.base_lr
    groups = decay_groups(model, options.weight_decay, config.tricks.no_bias_decay)
    settings = _settings(options)
    if options.name == "lamb":
        return Lamb(groups, lr=lr, **settings)
    if options.name == "lars":
        return Lars(groups, lr=lr, **settings)
    optimizer = torch.optim.SGD(groups, lr=lr, fused=True, **settings)
    if options.momentum:
        _start_momentum_at_zero(optimizer)
    return optimizer


def change_settings(optimizer: torch.optim.Optimizer, model: nn.Module, config: ExperimentConfig) -> None:
    """Have an optimizer of the same kind go on with a config's settings; what it has averaged stays.

    Without momentum there is no velocity: it is forgotten, and starts at 0 when momentum comes back.
    """
    options = config.optimizer
    fresh = decay_groups(model, options.weight_decay, config.tricks.no_bias_decay)
    for group, of_config in zip(optimizer.param_groups, fresh, strict=True):
        group.update(_settings(options), weight_decay=of_config["weight_decay"])
    if options.name == "lamb":
        return
    if options.momentum:
        _start_momentum_at_zero(optimizer)
    else:
        optimizer.state.clear()


def _settings(options: OptimizerConfig) -> dict[str, Any]:
    """Return what the optimizer takes beside lr and weight decay."""
    if options.name == "lamb":
        return {"betas": options.betas, "epsilon": options.epsilon}
    settings: dict[str, Any] = {"momentum": options.momentum, "nesterov": options.nesterov}
    return settings | ({"trust_coefficient": options.trust_coefficient} if options.name == "lars" else {})


def _start_momentum_at_zero(optimizer: torch.optim.Optimizer) -> None:
    """Give each weight that has none a velocity of 0, from which the first step is the same.

    torch 2.15's fused SGD allocates it without a value, and when the loss scaler skips the first
    step it stays so: every later step would add what the memory happened to hold.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
