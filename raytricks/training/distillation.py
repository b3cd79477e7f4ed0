"""Where a step's teacher logits come from: the teacher itself, or what it said before."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raytricks.data.augmentation import to_device
from raytricks.data.batches import TrainBatch
from raytricks.parts.hooks import Hooks
from raytricks.parts.tricks import DistillationConfig
from raytricks.recipe.resolve import training_sides
from raytricks.training.loss import RunContext
from raytricks.training.teacher import Teacher, load_teacher
from raytricks.training.teacher_cache import TeacherCache, open_cache
from raytricks.tricks.distillation import distillation_losses, distilled_losses


class Teaching(Protocol):
    """A source of teacher logits."""

    def open_epoch(self, epoch: int) -> str | None:
        """Prepare an epoch, counted from 0; returns a note for the user. Collective."""
        ...

    def logits(self, batch: TrainBatch, inputs: Tensor) -> Tensor:
        """Return the (n, K) float32 logits of a micro-batch with (n, C, S, S) blended inputs."""
        ...


class LiveTeaching:
    """Asks the teacher in every step, about the very images that the student sees."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def open_epoch(self, epoch: int) -> str | None:
        return None

    def logits(self, batch: TrainBatch, inputs: Tensor) -> Tensor:
        return self._teacher.logits(inputs)


class CachedTeaching:
    """Looks the logits up by sample; images must not be blended, see `TeacherCache`."""

    def __init__(self, cache: TeacherCache, device: torch.device) -> None:
        self._cache, self._device = cache, device
        self._of_epoch: np.ndarray | None = None

    def open_epoch(self, epoch: int) -> str | None:
        filled = self._cache.fill_epoch(epoch)
        self._of_epoch = filled.logits
        return filled.note

    def logits(self, batch: TrainBatch, inputs: Tensor) -> Tensor:
        assert self._of_epoch is not None, "open_epoch comes first"
        return to_device(torch.from_numpy(self._of_epoch[batch.samples]), self._device)


def make_teaching(run: RunContext, settings: DistillationConfig) -> Teaching:
    """Load the teacher that a config names. Collective.

    Raises:
        ConfigError: no such teacher, or one of other classes.
        RaytricksError: the cache cannot be used.
    """
    assert settings.teacher is not None
    sides = training_sides(run.config)
    teacher = load_teacher(
        settings.teacher,
        weights=settings.teacher_weights,
        data=run.data,
        device=run.worker.device,
        precision=run.parallel.precision,
        channels_last=run.config.hardware.channels_last,
        sides=sides,
    )
    if settings.cache_dir is None:
        return LiveTeaching(teacher)
    batches = run.batches
    cache = open_cache(
        settings.cache_dir,
        teacher=teacher,
        data=run.data.train,
        num_classes=run.data.num_classes,
        transform=run.data.transform,
        image_tricks=batches.image_tricks,
        augmentation_seed=batches.seed if batches.augmentation_seed is None else batches.augmentation_seed,
        worker=run.worker,
        batch_size=2 * run.parallel.micro_batch_size,
        side=sides[-1],  # the config allows a cache only where all are the same
    )
    return CachedTeaching(cache, run.worker.device)


def _before_epoch(state: Teaching, epoch: int) -> str | None:
    return state.open_epoch(epoch)


def _losses(
    losses: Tensor, logits: Tensor, inputs: Tensor, batch: TrainBatch, state: Teaching, settings: DistillationConfig
) -> Tensor:
    soft = distillation_losses(logits, state.logits(batch, inputs), settings.temperature)
    return distilled_losses(losses, soft, settings.hard_weight, settings.soft_weight)


HOOKS = Hooks(state=make_teaching, before_epoch=_before_epoch, losses=_losses)
