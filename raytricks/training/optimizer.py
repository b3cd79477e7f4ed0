"""The optimizer that a config names, over its groups with and without weight decay."""

import torch
from torch import nn

from raytricks.config.schema import ExperimentConfig
from raytricks.tricks.lamb import Lamb
from raytricks.tricks.lars import Lars
from raytricks.tricks.no_bias_decay import decay_groups


def build_optimizer(model: nn.Module, config: ExperimentConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a model's trainable parameters; the lr is set before each step."""
    options, lr = config.optimizer, config.recipe.base_lr
    groups = decay_groups(model, options.weight_decay, config.tricks.no_bias_decay)
    if options.name == "lamb":
        return Lamb(groups, lr=lr, betas=options.betas, epsilon=options.epsilon)
    if options.name == "lars":
        return Lars(
            groups,
            lr=lr,
            momentum=options.momentum,
            nesterov=options.nesterov,
            trust_coefficient=options.trust_coefficient,
        )
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=options.momentum, nesterov=options.nesterov, fused=True)
    if options.momentum:
        _start_momentum_at_zero(optimizer)
    return optimizer


def _start_momentum_at_zero(optimizer: torch.optim.Optimizer) -> None:
    """Give each weight a momentum of 0, from which the first step is the same as from none.

    torch 2.15's fused SGD allocates it without a value, and when the loss scaler skips the first
    step it stays so: every later step would add what the memory happened to hold.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
