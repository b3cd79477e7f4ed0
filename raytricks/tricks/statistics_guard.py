"""Keeps an overflow of fp16 out of the batch-norm statistics.

The loss scaler leaves the weights alone in a step that overflows, but the forward pass has
already put infinity or NaN into the running statistics, where it would stay for ever.
"""

import torch
from torch import nn


class StatisticsGuard:
    """Remembers a model's floating-point buffers and puts them back after a skipped step.

    Neither call waits for the device.
    """

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._saved = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the values from before a step."""
        if self._buffers:
            torch._foreach_copy_(self._saved, self._buffers)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def restore_unless(self, is_good: torch.Tensor) -> None:
        """Put back what was remembered, unless the step was good; never let a non-finite value in.

        Args:
            is_good: 0-dimensional bool on the buffers' device.
        """
        for buffer, saved in zip(self._buffers, self._saved, strict=True):
            buffer.copy_(torch.where(is_good & buffer.isfinite(), buffer, saved))
