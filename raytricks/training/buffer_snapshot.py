"""A model's buffers as they were before a step: for a step that overflowed, and for one that did not fit."""
# pyright: reportPrivateImportUsage=false
# torch's _foreach functions have no public name

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
