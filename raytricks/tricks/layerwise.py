"""What LARS and LAMB share: the loop over parameter groups, and the ratio of a layer's norms."""
# pyright: reportPrivateImportUsage=false
# torch's own optimizers are built of the _foreach functions, which have no public name

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

Tensors = list[Tensor] | tuple[Tensor, ...]


class LayerwiseOptimizer(torch.optim.Optimizer):
    """An optimizer of full-precision weights that checks the settings of each group."""

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        self._check(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; see the class for the settings and ValueError."""
        self._check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        _require_full_precision(self.param_groups[-1]["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters; return what `closure`, which renews the gradients, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    @abstractmethod
    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters that all have a gradient."""

    @abstractmethod
    def _check(self, settings: dict[str, Any]) -> None:
        """Raise ValueError for a setting out of its range."""


def trust_ratios(weights: Tensors, steps: Tensors, coefficient: float = 1.0, weight_decay: float = 0.0) -> list[Tensor]:
    """Return coefficient * |w| / (|s| + weight_decay * |w|) of each layer, 1 where |w| or |s| is 0.

    Args:
        weights: one or more tensors of one device.
        steps: as many: the gradients (LARS), or the steps that LAMB would take.

    Returns:
        0-dimensional tensors on the weights' device and of their type, computed there.
    """
    weight_norms, step_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, steps))
    ratios = coefficient * weight_norms / (step_norms + weight_decay * weight_norms)
    return list(torch.where((weight_norms > 0) & (step_norms > 0), ratios, 1.0).unbind())


def _require_full_precision(parameters: Iterable[Tensor]) -> None:
    """Raise a ValueError for weights of half precision, whose update would be lost in their rounding."""
    for parameter in parameters:
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"parameters must be float32 or float64, got {parameter.dtype}; use autocast instead")
