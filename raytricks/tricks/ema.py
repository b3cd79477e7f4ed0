"""Exponential moving average of the weights, evaluated beside them; not in the paper."""

import copy
from typing import Any

import torch
from torch import nn

from raytricks.parts.hooks import Hooks
from raytricks.parts.tricks import EmaConfig


def average_decay(decay: float, step: int) -> float:
    """Return the weight of the old average at an update: min(decay, (1 + step)/(10 + step)).

    The ramp lets a short run forget its random start, which a decay near 1 would keep.

    Args:
        decay: in [0, 1).
        step: number of the update, >= 1.

    Raises:
        ValueError: an argument is out of range.

    Source: TensorFlow's ExponentialMovingAverage with num_updates; Polyak & Juditsky 1992.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    if step < 1:
        raise ValueError(f"step must be >= 1, got {step}")
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """The average of a model's weights and buffers.

    Buffers are included: batch-norm statistics of other weights would not fit the averaged ones.
    Whole numbers (`num_batches_tracked`) are copied.

    Args:
        model: where the average starts. Its tensors are read in place at every update.

    Attributes:
        module: the averaged model, in evaluation mode and without gradients.
    """

    def __init__(self, model: nn.Module) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        named = zip(self.module.state_dict().values(), model.state_dict().values(), strict=True)
        # tied weights have several names, and must move once
        pairs = list({pair[0].data_ptr(): pair for pair in named if pair[0].numel()}.values())
        self._averages = [average for average, _ in pairs if average.is_floating_point()]
        self._values = [value for average, value in pairs if average.is_floating_point()]
        self._whole = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move towards the model: average = decay * average + (1 - decay) * model.

        Args:
            decay: weight of the old average, in [0, 1].
        """
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, value in self._whole:
            average.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged tensors by name."""
        return self.module.state_dict()

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.module.load_state_dict(content)


def _state(model: nn.Module) -> WeightAverage:
    return WeightAverage(model)


def _after_step(state: WeightAverage, step: int, settings: EmaConfig) -> None:
    state.update(average_decay(settings.decay, step))


def _weights(state: WeightAverage) -> nn.Module:
    return state.module


HOOKS = Hooks(state=_state, after_step=_after_step, weights=_weights)
