"""LAMB: Adam whose step is scaled, layer by layer, to the norm of the layer's weights."""
# pyright: reportPrivateImportUsage=false
# torch's own optimizers are built of the _foreach functions, which have no public name

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from raytricks.parts.hooks import Hooks
from raytricks.parts.optimizers import LambConfig
from raytricks.tricks.layerwise import LayerwiseOptimizer, Tensors, trust_ratios


class Lamb(LayerwiseOptimizer):
    """Layer-wise adaptive moments, for global batches beyond 8k.

        m = beta1 * m + (1 - beta1) * gradient,     v = beta2 * v + (1 - beta2) * gradient^2
        r = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
        weights -= lr * ratio * (r + weight_decay * weights),     ratio = |weights| / |r + weight_decay * weights|

    The ratio is 1 where either norm is 0. Groups with weight_decay 0 have ratio 1 and are Adam's; so
    is everything when every group has weight_decay 0. Parameters without a gradient are left alone.
    No step waits for the device. State: "exp_avg" m and "exp_avg_sq" v, of the parameter's shape and
    type, and "step" t, an int of its own for each parameter (timm: one for a group).

    Gradients are used as they are; timm also clips their norm to 1 unless told not to.

    Args:
        params: float32 or float64, of one device; a group may carry its own settings.
        lr: >= 0; written to the groups' "lr" by a schedule.
        betas: both in [0, 1).
        epsilon: > 0.
        weight_decay: >= 0, inside the ratio, not in the averages.

    Raises:
        ValueError: a setting out of its range, or parameters of another type.

    Source: You et al. 2020, arXiv 1904.00962, algorithm 2, with phi the identity.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "epsilon": epsilon, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        steps = self._adam_steps(parameters, group["betas"], group["epsilon"])
        if group["weight_decay"] != 0:
            torch._foreach_add_(steps, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(steps, trust_ratios(parameters, steps))
        torch._foreach_add_(parameters, steps, alpha=-group["lr"])

    def _adam_steps(self, parameters: list[Tensor], betas: tuple[float, float], epsilon: float) -> Tensors:
        """Take the gradients into the averages; return r of each parameter, in tensors of its own."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        states = [self._counted_state(parameter) for parameter in parameters]
        averages = [state["exp_avg"] for state in states]
        square_averages = [state["exp_avg_sq"] for state in states]
        beta1, beta2 = betas
        torch._foreach_lerp_(averages, gradients, 1 - beta1)
        torch._foreach_mul_(square_averages, beta2)
        torch._foreach_addcmul_(square_averages, gradients, gradients, value=1 - beta2)

        denominators = torch._foreach_sqrt(square_averages)
        torch._foreach_div_(denominators, [math.sqrt(1 - beta2 ** state["step"]) for state in states])
        torch._foreach_add_(denominators, epsilon)
        steps = torch._foreach_div(averages, [1 - beta1 ** state["step"] for state in states])
        torch._foreach_div_(steps, denominators)
        return steps

    def _counted_state(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))
        state["step"] += 1
        return state

    def _check(self, settings: dict[str, Any]) -> None:
        for name in ("lr", "weight_decay"):
            if not 0 <= settings[name] < math.inf:
                raise ValueError(f"{name} must be in [0, inf), got {settings[name]}")
        if len(settings["betas"]) != 2 or not all(0 <= beta < 1 for beta in settings["betas"]):
            raise ValueError(f"betas must be two numbers in [0, 1), got {settings['betas']}")
        if not 0 < settings["epsilon"] < math.inf:
            raise ValueError(f"epsilon must be in (0, inf), got {settings['epsilon']}")


def _build(groups: list[dict[str, Any]], lr: float, settings: LambConfig) -> Lamb:
    return Lamb(groups, lr, betas=settings.betas, epsilon=settings.epsilon)


HOOKS = Hooks(build=_build)
