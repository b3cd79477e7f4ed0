"""SGD with Nesterov momentum: torch's own, fused, from a velocity that is never left to chance."""

from typing import Any

import torch

from raytricks.parts.hooks import Hooks
from raytricks.parts.optimizers import SgdConfig


def renew_velocities(optimizer: torch.optim.Optimizer) -> None:
    """Give each weight that has no velocity one of 0, from which the first step is the same; without momentum, none.

    torch 2.15's fused SGD allocates it without a value, and when the loss scaler skips the first
    step it stays so: every later step would add what the memory happened to hold.

    Args:
        optimizer: SGD or LARS; changed in place.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not group["momentum"]:
                optimizer.state.pop(parameter, None)
            elif "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _build(groups: list[dict[str, Any]], lr: float, settings: SgdConfig) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=True)


HOOKS = Hooks(build=_build, changed=renew_velocities)
