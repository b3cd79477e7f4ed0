"""A state put back: buffers of a model before a step, an optimizer's and a scaler's state on other hardware."""
# pyright: reportPrivateImportUsage=false
# torch's _foreach functions have no public name

from typing import Any

import torch
from torch import nn


class BufferSnapshot:
    """Remembers a model's buffers (batch-norm statistics and counters); no call waits for the device."""

    def __init__(self, model: nn.Module) -> None:
        buffers = list(model.buffers())
        # one list a type: a _foreach call on several types takes a slow path
        self._buffers = [[b for b in buffers if b.dtype == dtype] for dtype in {b.dtype for b in buffers}]
        self._saved = [[b.clone() for b in alike] for alike in self._buffers]

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the values from before a step."""
        for saved, buffers in zip(self._saved, self._buffers, strict=True):
            torch._foreach_copy_(saved, buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was remembered."""
        for saved, buffers in zip(self._saved, self._buffers, strict=True):
            torch._foreach_copy_(buffers, saved)

    @torch.no_grad()
    def restore_unless(self, is_good: torch.Tensor) -> None:
        """Put back floating-point buffers unless the step was good; never let a non-finite value in.

        In a step that overflows the loss scaler leaves the weights alone, but the forward pass has already put
        infinity or NaN into the running statistics, where it would stay for ever.

        Args:
            is_good: 0-dimensional bool on the buffers' device.
        """
        for saved_alike, alike in zip(self._saved, self._buffers, strict=True):
            for saved, buffer in zip(saved_alike, alike, strict=True):
                if buffer.is_floating_point():
                    buffer.copy_(torch.where(is_good & buffer.isfinite(), buffer, saved))


def load_optimizer_state(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Load an optimizer's state dict, each buffer in the memory layout of its parameter.

    torch keeps the layout that a buffer was saved with, and fused optimizers pair the memory of buffer
    and parameter linearly: after a change of hardware.channels_last, momentum would reach other weights.
    """
    optimizer.load_state_dict(content)
    for parameter, buffers in optimizer.state.items():
        for name, value in buffers.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                buffers[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def load_scaler_state(scaler: torch.amp.GradScaler, content: dict[str, Any]) -> None:
    """Load a loss scaler's state dict; an empty one, of bf16 or fp32, leaves the scaler as it begins."""
    if content:
        scaler.load_state_dict(content)
