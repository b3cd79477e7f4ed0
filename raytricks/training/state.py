"""What training changes: model, optimizer, loss scaler and the step counter."""

from dataclasses import dataclass, field
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raytricks.config.schema import ExperimentConfig
from raytricks.models.registry import build_model
from raytricks.training.step_log import TOTALS
from raytricks.training.worker import Worker
from raytricks.tricks.mixed_precision import Precision, make_scaler
from raytricks.tricks.no_bias_decay import decay_groups
from raytricks.tricks.zero_gamma import zero_last_gammas

_PLAIN = ("step", "epoch_totals", "skipped_in_a_row", "last_metrics")
"""Attributes of TrainingState that a checkpoint holds as they are."""


@dataclass
class TrainingState:
    """Everything that a checkpoint must hold, and the module that gradients flow through.

    Attributes:
        model: the plain module, whose names the state dict has.
        trained: `model`, wrapped for data parallelism when there are several workers.
        step: optimizer steps made.
        epoch_totals: sums of the unfinished epoch, see step_log.
        skipped_in_a_row: steps that the loss scaler skipped since the last good one.
        last_metrics: of the last evaluation.
    """

    model: nn.Module
    trained: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    epoch_totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TOTALS, 0.0))
    skipped_in_a_row: int = 0
    last_metrics: dict[str, float] = field(default_factory=dict)

    def content(self, buffers: Tensor | None) -> dict[str, Any]:
        """Return what a checkpoint holds: tensors and plain values.

        Args:
            buffers: (world_size, ...) `worker_buffers` of all workers.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "worker_buffers": buffers,
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def load(self, content: dict[str, Any], worker: Worker) -> None:
        """Take over a checkpoint, made by this or another number of workers."""
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        for name in _PLAIN:
            setattr(self, name, content[name])
        buffers = content["worker_buffers"]
        is_same_world = len(buffers) == worker.world_size
        load_worker_buffers(self.model, buffers[worker.rank] if is_same_world else buffers.mean(dim=0))


def build_state(config: ExperimentConfig, *, num_classes: int, worker: Worker, precision: Precision) -> TrainingState:
    """Build the model and its optimizer, alike on all workers.

    Args:
        config: resolved.
    """
    torch.manual_seed(config.seed)  # not the rank: all workers start from the same weights
    assert config.data.channels is not None and config.data.image_size is not None
    model = build_model(
        config.model,
        num_classes=num_classes,
        in_channels=config.data.channels,
        image_size=config.data.image_size,
    )
    if config.tricks.zero_gamma:
        zero_last_gammas(model)
    layout = torch.channels_last if config.hardware.channels_last else torch.contiguous_format
    model = model.to(device=worker.device, memory_format=layout)  # type: ignore[call-overload]
    trained = model
    if worker.world_size > 1:
        trained = _data_parallel(model, worker)
    options = config.optimizer
    optimizer = torch.optim.SGD(
        decay_groups(model, options.weight_decay, config.tricks.no_bias_decay),
        lr=config.recipe.base_lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        fused=True,
    )
    if options.momentum:
        _start_momentum_at_zero(optimizer)
    return TrainingState(model, trained, optimizer, make_scaler(precision, worker.device_type))


def _start_momentum_at_zero(optimizer: torch.optim.Optimizer) -> None:
    """Give each weight a momentum of 0, from which the first step is the same as from none.

    torch 2.15's fused SGD allocates it without a value, and when the loss scaler skips the first
    step it stays so: every later step would add what the memory happened to hold.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _data_parallel(model: nn.Module, worker: Worker) -> DistributedDataParallel:
    """Wrap a model; batch-norm statistics stay per worker (Goyal 2017), averaged before evaluation."""
    options = inspect.signature(DistributedDataParallel).parameters
    # torch 2.13 renamed the option and deprecated the old name
    no_sync = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    devices = [worker.device] if worker.device.type == "cuda" else None
    per_version: dict[str, Any] = {no_sync: False}
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, **per_version)


def worker_buffers(model: nn.Module) -> Tensor:
    """Return this worker's floating-point buffers (batch-norm statistics) as one flat tensor."""
    buffers = _float_buffers(model)
    device = next(model.parameters()).device  # nccl gathers nothing that lies on the CPU
    return torch.cat([b.flatten() for b in buffers]) if buffers else torch.empty(0, device=device)


def load_worker_buffers(model: nn.Module, values: Tensor) -> None:
    """Put a flat tensor from `worker_buffers` back."""
    buffers = _float_buffers(model)
    for buffer, part in zip(buffers, values.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def _float_buffers(model: nn.Module) -> list[Tensor]:
    return [b for b in model.buffers() if b.is_floating_point()]
