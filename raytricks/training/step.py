"""One optimizer step: forward and backward of its micro-batches, then the update.

    begin:                  lr, blend, dropout seed of the step
    for each micro-batch:   forward (autocast) -> objective -> scaled backward
    after the last:         unscale -> norm -> clip -> update (or skip, fp16) -> next scale -> average

The objective of a micro-batch is the SUM over its images divided by the global batch, so
uneven shares and accumulation give exactly the gradient of the global mean (DDP averages over
workers, hence the factor world_size).
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import TrainBatch
from raytricks.recipe.blending import Blend, blends_images, draw_blend
from raytricks.recipe.image_sizes import training_sides
from raytricks.recipe.recipe import Recipe
from raytricks.training.objective import Targets, objective_losses, plain_sums
from raytricks.training.state import TrainingState
from raytricks.training.worker import Worker
from raytricks.tricks.ema import average_decay
from raytricks.tricks.gradient_clipping import clip_by_norm, global_norm
from raytricks.tricks.gradient_noise_scale import squared_gradient_norm
from raytricks.tricks.mixed_precision import Precision, autocast
from raytricks.tricks.statistics_guard import StatisticsGuard

_RNG_STRIDE = 1_000_003  # spreads (seed, step, rank) over the generator's seeds

TeacherLogits = Callable[[TrainBatch, Tensor], Tensor]
"""Of a micro-batch and its blended inputs (n, C, S, S): the teacher's (n, K) logits."""


class Stepper:
    """Carries out the steps of one worker.

    Args:
        config: resolved.
        precision: fp32, fp16 or bf16.
        teacher_logits: for distillation, else None.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        recipe: Recipe,
        state: TrainingState,
        worker: Worker,
        precision: Precision,
        teacher_logits: TeacherLogits | None = None,
    ) -> None:
        self._config = config
        self._recipe = recipe
        self._state = state
        self._worker = worker
        self._precision: Precision = precision
        self._teacher_logits = teacher_logits
        self._has_neighbours = blends_images(config)
        self._sides = training_sides(config)
        self._layout = torch.channels_last if config.hardware.channels_last else torch.contiguous_format
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        # only the loss scaler goes on after a step that overflowed
        self._guard = StatisticsGuard(state.model) if state.scaler.is_enabled() else None
        self._blend: Blend | None = None
        self._sums: Tensor | None = None
        self._noise: Tensor | None = None

    def begin(self) -> None:
        """Prepare the next step: its learning rate and its random numbers."""
        step = self._state.step + 1
        for group in self._state.optimizer.param_groups:
            group["lr"] = self._recipe.lr(step)
        epoch = self._recipe.epoch_of(step)
        self._blend = draw_blend(self._config, step, epoch, self._sides[epoch])
        self._seed_dropout(step)
        if self._guard is not None:
            self._guard.remember()
        self._state.optimizer.zero_grad(set_to_none=True)
        self._sums = self._noise = None

    def accumulate(self, batch: TrainBatch) -> None:
        """Add the gradient of one micro-batch; the last one also sums it over the workers."""
        is_silent = self._worker.world_size > 1 and not batch.is_last_of_step
        with self._state.ddp_model.no_sync() if is_silent else nullcontext():  # type: ignore[operator]
            inputs, targets = self._blended(batch)
            with autocast(self._worker.device_type, self._precision):
                logits = self._state.ddp_model(inputs)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            losses = objective_losses(logits, targets, self._config.tricks)
            if self._noise is None:
                self._noise = self._measure_noise(losses)
            objective = losses.sum()
            scale = self._worker.world_size / self._recipe.global_batch_size
            self._state.scaler.scale(objective * scale).backward()
        sums = torch.cat([objective.detach()[None], plain_sums(logits.detach(), targets)]).float()
        self._sums = sums if self._sums is None else self._sums + sums

    def gradient_norm(self) -> Tensor:
        """Return the norm of the whole gradient in true units; a 0-dim tensor on the device."""
        self._state.scaler.unscale_(self._state.optimizer)
        return global_norm(self._parameters)

    def update(self, norm: Tensor) -> Tensor:
        """Clip and update the weights and their average; return the step's row for the log.

        The scaler of fp16 leaves the weights alone when the norm is not finite.
        """
        state = self._state
        is_finite = norm.isfinite()
        if self._config.recipe.clip_norm is not None:
            clip_by_norm(self._parameters, norm, self._config.recipe.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        if self._guard is not None:
            self._guard.restore_unless(is_finite)
        if state.average is not None:
            state.average.update(average_decay(self._config.tricks.ema.decay, state.step))
        assert self._sums is not None and self._noise is not None
        return torch.cat([self._sums, torch.stack([norm, ~is_finite]).float(), self._noise])

    def _blended(self, batch: TrainBatch) -> tuple[Tensor, Targets]:
        inputs, labels, neighbour_labels = batch.inputs, batch.labels, None
        if self._has_neighbours:
            inputs, neighbours = inputs[1:], inputs[:-1]
            labels, neighbour_labels = labels[1:], labels[:-1]
            if self._blend is not None:
                inputs = self._blend.apply(inputs, neighbours)
        inputs = inputs.contiguous(memory_format=self._layout)
        teacher_logits = None if self._teacher_logits is None else self._teacher_logits(batch, inputs)
        return inputs, Targets(labels, neighbour_labels, self._blend, teacher_logits)

    def _measure_noise(self, losses: Tensor) -> Tensor:
        """Return (2,) for the log: |g_b|^2 and 1/b of the first half of a micro-batch, or zeros."""
        every, step = self._config.logging.noise_scale_every, self._state.step + 1
        num_images = len(losses) // 2
        if every is None or step % every or num_images == 0:
            return torch.zeros(2, device=losses.device)
        scaler = self._state.scaler
        square = squared_gradient_norm(scaler.scale(losses[:num_images].mean()), self._parameters)
        unit = scaler.scale(torch.ones_like(square))  # the loss scale, without waiting for it
        return torch.stack([square / unit.square(), torch.full_like(square, 1 / num_images)]).float()

    def _seed_dropout(self, step: int) -> None:
        """Make dropout depend on (seed, step, rank), so that a resume needs no generator state."""
        seed = (self._config.seed * _RNG_STRIDE + step) * _RNG_STRIDE + self._worker.rank
        device = self._worker.device
        generator = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
        generator.manual_seed(seed % 2**63)
