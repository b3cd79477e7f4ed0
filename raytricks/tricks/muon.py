"""Muon: momentum whose step is made orthogonal, for the matrices of a network trained from scratch."""
# pyright: reportPrivateImportUsage=false

from typing import Any

import torch
from torch import Tensor

from raytricks.parts.hooks import Hooks
from raytricks.parts.optimizers import MuonConfig
from raytricks.tricks.layerwise import LayerwiseOptimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan 2024: singular values end between 0.7 and 1.2, in five steps
_STEPS = 5
_SMALLEST_NORM = 1e-7


class Muon(LayerwiseOptimizer):
    """Momentum orthogonalised by Newton and Schulz.

        velocity = momentum * velocity + (1 - momentum) * gradient
        step     = orthogonal(gradient + momentum * (velocity - gradient))        with Nesterov; else of the velocity
        weights -= lr * (max(1, rows / columns)^0.5 * step + weight_decay * weights)

    The kernel of a convolution is the matrix of its output channels; vectors (biases, gammas, betas) take the step
    of momentum without the rest. torch's own Muon takes matrices only; on those this equals it.

    Args:
        params: float32 or float64, of one device; a group may carry its own settings.
        lr: >= 0; written to the groups' "lr" by a schedule.
        momentum: in [0, 1).
        nesterov: look ahead.
        weight_decay: >= 0, decoupled.

    Raises:
        ValueError: a setting out of its range, or parameters of another type.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay})

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(parameter)
            velocity = state["velocity"].lerp_(parameter.grad, 1 - group["momentum"])
            step = parameter.grad.lerp(velocity, group["momentum"]) if group["nesterov"] else velocity
            if parameter.ndim > 1:
                matrix = _as_matrix(step)
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                step = _like(orthogonal(matrix).mul_(scale), step)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(step, alpha=-group["lr"])

    def _check(self, settings: dict[str, Any]) -> None:
        for name in ("lr", "weight_decay"):
            if not settings[name] >= 0:
                raise ValueError(f"{name} must be >= 0, got {settings[name]}")
        if not 0 <= settings["momentum"] < 1:
            raise ValueError(f"momentum must be in [0, 1), got {settings['momentum']}")


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix whose singular values are 1, in bf16 arithmetic.

    Args:
        matrix: (m, n) float.

    Source: Jordan et al. 2024; Bernstein & Newhouse 2024.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=_SMALLEST_NORM)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)


def _as_matrix(step: Tensor) -> Tensor:
    """Rows are output channels; the order of the columns, which memory decides, does not matter to what comes out."""
    return step.permute(0, *range(2, step.ndim), 1).flatten(1)


def _like(matrix: Tensor, step: Tensor) -> Tensor:
    moved = step.permute(0, *range(2, step.ndim), 1)
    return matrix.view(moved.shape).permute(0, step.ndim - 1, *range(1, step.ndim - 1))


def _build(groups: list[dict[str, Any]], lr: float, settings: MuonConfig) -> Muon:
    return Muon(groups, lr, momentum=settings.momentum, nesterov=settings.nesterov)


HOOKS = Hooks(build=_build)
