"""What training changes: model, its average, optimizer, loss scaler and the step counter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raytricks.config.schema import ExperimentConfig
from raytricks.models.registry import build_model
from raytricks.models.weights import start_from
from raytricks.recipe.chain import Chain
from raytricks.training.loss import RunContext
from raytricks.training.optimizer import build_optimizer
from raytricks.training.restoring import load_optimizer_state, load_scaler_state
from raytricks.training.step_log import TOTALS
from raytricks.training.worker import Worker
from raytricks.tricks.mixed_precision import Precision, make_scaler

_PLAIN = ("step", "epoch_totals", "skipped_in_a_row", "last_metrics")
"""Attributes of TrainingState that a checkpoint holds as they are."""


@dataclass
class TrainingState:
    """Everything that a checkpoint must hold, and the module that gradients flow through.

    Attributes:
        model: the plain module, whose names the state dict has.
        ddp_model: `model`, wrapped for data parallelism when there are several workers.
        carried: what the parts carry from step to step, by their names.
        shadows: second sets of weights that parts keep, by their names; evaluated and saved beside the model.
        step: optimizer steps made.
        epoch_totals: sums of the epoch whose record is not written yet, see step_log.
        skipped_in_a_row: steps that the loss scaler skipped since the last good one.
        last_metrics: of the last evaluation.
    """

    model: nn.Module
    ddp_model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    carried: dict[str, Any] = field(default_factory=dict)
    shadows: dict[str, nn.Module] = field(default_factory=dict)
    step: int = 0
    epoch_totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TOTALS, 0.0))
    skipped_in_a_row: int = 0
    last_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def models(self) -> list[nn.Module]:
        """The model and its shadows."""
        return [self.model, *self.shadows.values()]

    def begin_epoch(self, metrics: dict[str, float]) -> None:
        """Forget the sums of the epoch before, whose record is written, and keep what it was measured by."""
        self.epoch_totals = dict.fromkeys(TOTALS, 0.0)
        self.last_metrics = metrics

    def carry(self, chain: Chain, run: RunContext | None = None) -> None:
        """Make what the parts carry; before a checkpoint is loaded. Collective.

        Args:
            run: None for a step outside of a run, as in a test; parts that need it are then left out.
        """
        for call in chain.calls("state"):
            if run is None and "run" in call.wanted:
                continue
            self.carried[call.part.name] = call(model=self.model, run=run)
        for call in chain.calls("weights"):
            self.shadows[call.part.name] = call(state=self.carried[call.part.name])

    def content(self, buffers: Tensor | None) -> dict[str, Any]:
        """Return what a checkpoint holds: tensors and plain values.

        Args:
            buffers: (world_size, ...) `worker_buffers` of all workers.
        """
        return {
            "model": self.model.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._saved_parts().items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "worker_buffers": buffers,
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def load(self, content: dict[str, Any], worker: Worker) -> None:
        """Take over a checkpoint, made by this or another number of workers."""
        self.model.load_state_dict(content["model"])
        for name, part in self._saved_parts().items():
            part.load_state_dict(content["parts"][name])
        load_optimizer_state(self.optimizer, content["optimizer"])
        load_scaler_state(self.scaler, content["scaler"])
        for name in _PLAIN:
            setattr(self, name, content[name])
        self.epoch_totals = dict.fromkeys(TOTALS, 0.0) | self.epoch_totals  # an older version may have counted less
        buffers = content["worker_buffers"]
        is_same_world = len(buffers) == worker.world_size
        load_worker_buffers(self.models, buffers[worker.rank] if is_same_world else buffers.mean(dim=0))

    def _saved_parts(self) -> dict[str, Any]:
        return {name: part for name, part in self.carried.items() if hasattr(part, "state_dict")}


def build_state(
    config: ExperimentConfig,
    *,
    class_names: Sequence[str],
    worker: Worker,
    precision: Precision,
    is_resumed: bool = False,
    run: RunContext | None = None,
) -> TrainingState:
    """Build the model and its optimizer, alike on all workers.

    Args:
        config: resolved.
        is_resumed: a checkpoint follows, so the weights to start from are not needed any more.
        run: as of `TrainingState.carry`.

    Raises:
        ConfigError: the weights to start from cannot be used.
    """
    torch.manual_seed(config.seed)  # not the rank: all workers start from the same weights
    assert config.data.channels is not None and config.data.image_size is not None
    channels, side = config.data.channels, config.data.image_size
    model = build_model(config.model, num_classes=len(class_names), in_channels=channels, image_size=side)
    chain = Chain(config)
    for call in chain.calls("model"):
        model = call(model=model, num_workers=worker.world_size)
    if not is_resumed:  # overwrites what zero gamma did, as it should
        start_from(model, config.model, class_names=class_names, image_size=side)
    layout = torch.channels_last if config.hardware.channels_last else torch.contiguous_format
    model = model.to(device=worker.device, memory_format=layout)  # type: ignore[call-overload]
    ddp_model = model
    if worker.world_size > 1:
        ddp_model = _data_parallel(model, worker)
        for call in chain.calls("reduction"):
            call(ddp_model=ddp_model)
    state = TrainingState(model, ddp_model, build_optimizer(model, config), make_scaler(precision, worker.device_type))
    state.carry(chain, run)
    return state


def _data_parallel(model: nn.Module, worker: Worker) -> DistributedDataParallel:
    """Wrap a model; batch-norm statistics stay per worker (Goyal 2017), averaged before evaluation."""
    options = inspect.signature(DistributedDataParallel).parameters
    # torch 2.13 renamed the option and deprecated the old name
    no_sync = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    devices = [worker.device] if worker.device.type == "cuda" else None
    per_version: dict[str, Any] = {no_sync: False}
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, **per_version)


def worker_buffers(models: Sequence[nn.Module]) -> Tensor:
    """Return this worker's floating-point buffers (batch-norm statistics) as one flat tensor."""
    buffers = _float_buffers(models)
    device = next(models[0].parameters()).device  # nccl gathers nothing that lies on the CPU
    return torch.cat([b.flatten() for b in buffers]) if buffers else torch.empty(0, device=device)


def load_worker_buffers(models: Sequence[nn.Module], values: Tensor) -> None:
    """Put a flat tensor from `worker_buffers` back."""
    buffers = _float_buffers(models)
    for buffer, part in zip(buffers, values.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def _float_buffers(models: Sequence[nn.Module]) -> list[Tensor]:
    return [b for model in models for b in model.buffers() if b.is_floating_point()]
