"""LARS: SGD with momentum whose step is scaled, layer by layer, by the norm of the layer's weights."""
# pyright: reportPrivateImportUsage=false
# torch's own optimizers are built of the _foreach functions, which have no public name

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from raytricks.parts.hooks import Hooks
from raytricks.parts.optimizers import LarsConfig
from raytricks.tricks.layerwise import LayerwiseOptimizer, Tensors, trust_ratios
from raytricks.tricks.sgd import renew_velocities


class Lars(LayerwiseOptimizer):
    """Layer-wise adaptive rate scaling, for global batches beyond 8k.

        direction = ratio * (gradient + weight_decay * weights)       ratio: see `trust_ratios`
        velocity  = momentum * velocity + direction
        weights  -= lr * (velocity, or with Nesterov direction + momentum * velocity)

    Groups with weight_decay 0 have ratio 1 and are exactly torch.optim.SGD's; so is everything when
    every group has weight_decay 0. Parameters without a gradient are left alone. No step waits for
    the device. State: "momentum_buffer", of the parameter's shape and type; none without momentum.

    The lr stays outside the velocity, as in torch.optim.SGD and timm, so that it may change from
    step to step; You 2017 multiplies it into the direction, the same only for a constant lr. timm
    adds 1e-8 to the ratio's denominator, this adds nothing.

    Args:
        params: float32 or float64, of one device; a group may carry its own settings.
        lr: >= 0; written to the groups' "lr" by a schedule.
        momentum: in [0, 1).
        nesterov: needs momentum > 0.
        weight_decay: >= 0, coupled (added to the gradient).
        trust_coefficient: > 0, the largest part of a layer's norm that lr 1 moves it by, before momentum.

    Raises:
        ValueError: a setting out of its range, or parameters of another type.

    Source: You et al. 2017, arXiv 1708.03888, algorithm 1; the exemption of the undecayed: Jia et al. 2018.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
        defaults |= {"weight_decay": weight_decay, "trust_coefficient": trust_coefficient}
        super().__init__(params, defaults)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        directions: Tensors = [p.grad for p in parameters if p.grad is not None]
        if group["weight_decay"] != 0:
            ratios = trust_ratios(parameters, directions, group["trust_coefficient"], group["weight_decay"])
            # not in place: the gradients are still the caller's
            directions = torch._foreach_add(directions, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(directions, ratios)
        if group["momentum"] != 0:
            velocities = [self._velocity(parameter) for parameter in parameters]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, directions)
            nesterov = group["nesterov"]
            directions = torch._foreach_add(directions, velocities, alpha=group["momentum"]) if nesterov else velocities
        torch._foreach_add_(parameters, directions, alpha=-group["lr"])

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]

    def _check(self, settings: dict[str, Any]) -> None:
        for name, low, high in (("lr", 0, math.inf), ("momentum", 0, 1), ("weight_decay", 0, math.inf)):
            if not low <= settings[name] < high:
                raise ValueError(f"{name} must be in [{low}, {high}), got {settings[name]}")
        if not 0 < settings["trust_coefficient"] < math.inf:
            raise ValueError(f"trust_coefficient must be in (0, inf), got {settings['trust_coefficient']}")
        if settings["nesterov"] and settings["momentum"] == 0:
            raise ValueError("nesterov needs momentum > 0, got momentum 0")


def _build(groups: list[dict[str, Any]], lr: float, settings: LarsConfig) -> Lars:
    return Lars(
        groups,
        lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        trust_coefficient=settings.trust_coefficient,
    )


HOOKS = Hooks(build=_build, changed=renew_velocities)
