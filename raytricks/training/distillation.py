"""Where a step's teacher logits come from: the teacher itself, or what it said before."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from raytricks.config.schema import ExperimentConfig
from raytricks.data.augmentation import to_device
from raytricks.data.batches import TrainBatch, TrainBatches
from raytricks.data.prepared import PreparedData
from raytricks.recipe.parallel_plan import ParallelPlan
from raytricks.training.teacher import Teacher, load_teacher
from raytricks.training.teacher_cache import TeacherCache, open_cache
from raytricks.training.worker import Worker


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


def make_teaching(
    config: ExperimentConfig, data: PreparedData, batches: TrainBatches, worker: Worker, parallel: ParallelPlan
) -> Teaching | None:
    """Load the teacher that a config names; None when distillation is off. Collective.

    Raises:
        ConfigError: no such teacher, or one of other classes.
        RaytricksError: the cache cannot be used.
    """
    distillation = config.tricks.distillation
    if distillation.teacher is None:
        return None
    teacher = load_teacher(
        distillation.teacher,
        weights=distillation.teacher_weights,
        data=data,
        device=worker.device,
        precision=parallel.precision,
        channels_last=config.hardware.channels_last,
    )
    if distillation.cache_dir is None:
        return LiveTeaching(teacher)
    cache = open_cache(
        distillation.cache_dir,
        teacher=teacher,
        data=data.train,
        num_classes=data.num_classes,
        transform=data.transform,
        image_tricks=batches.image_tricks,
        augmentation_seed=batches.seed if batches.augmentation_seed is None else batches.augmentation_seed,
        worker=worker,
        batch_size=2 * parallel.micro_batch_size,
    )
    return CachedTeaching(cache, worker.device)
