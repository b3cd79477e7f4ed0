"""Optimizer and loss scaler from a checkpoint that was made with other hardware settings."""

from typing import Any

import torch


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
