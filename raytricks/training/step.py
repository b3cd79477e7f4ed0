"""One optimizer step: forward and backward of its micro-batches, then the update.

    for each micro-batch:   forward (autocast) -> objective -> scaled backward
    after the last:         unscale -> norm -> clip -> update (or skip, fp16) -> next scale

The objective of a micro-batch is the SUM over its images divided by the global batch, so
uneven shares and accumulation give exactly the gradient of the global mean (DDP averages over
workers, hence the factor world_size).
"""

from contextlib import nullcontext

import torch
from torch import Tensor
import torch.nn.functional as F

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import TrainBatch
from raytricks.recipe.recipe import Recipe
from raytricks.training.state import TrainingState
from raytricks.training.worker import Worker
from raytricks.tricks.gradient_clipping import clip_by_norm, global_norm
from raytricks.tricks.label_smoothing import smoothed_cross_entropy
from raytricks.tricks.mixed_precision import Precision, autocast
from raytricks.tricks.mixup import draw_mix_weight, mix

_RNG_STRIDE = 1_000_003  # spreads (seed, step, rank) over the generator's seeds


class Stepper:
    """Carries out the steps of one worker.

    Args:
        config: resolved.
        precision: fp32, fp16 or bf16.
    """

    def __init__(
        self, config: ExperimentConfig, recipe: Recipe, state: TrainingState, worker: Worker, precision: Precision
    ) -> None:
        self._recipe = recipe
        self._state = state
        self._worker = worker
        self._precision: Precision = precision
        self._seed = config.seed
        self._smoothing = config.tricks.label_smoothing
        self._alpha = config.tricks.mixup.alpha
        self._clip_norm = config.recipe.clip_norm
        self._layout = torch.channels_last if config.hardware.channels_last else torch.contiguous_format
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        self._sums: Tensor | None = None

    def begin(self) -> None:
        """Prepare the next step: its learning rate and its random numbers."""
        step = self._state.step + 1
        for group in self._state.optimizer.param_groups:
            group["lr"] = self._recipe.lr(step)
        self._mix_weight = draw_mix_weight(self._alpha, self._seed, step)
        self._seed_dropout(step)
        self._state.optimizer.zero_grad(set_to_none=True)
        self._sums = None

    def accumulate(self, batch: TrainBatch) -> None:
        """Add the gradient of one micro-batch; the last one also sums it over the workers."""
        is_silent = self._worker.world_size > 1 and not batch.is_last_of_step
        with self._state.trained.no_sync() if is_silent else nullcontext():  # type: ignore[operator]
            inputs, labels, neighbour_labels = self._mixed(batch)
            with autocast(self._worker.device_type, self._precision):
                logits = self._state.trained(inputs)
            logits = logits.float()
            losses = self._losses(logits, labels, neighbour_labels)
            objective = losses.sum()
            scale = self._worker.world_size / self._recipe.global_batch_size
            self._state.scaler.scale(objective * scale).backward()
        sums = self._summarise(objective.detach(), logits.detach(), labels, neighbour_labels)
        self._sums = sums if self._sums is None else self._sums + sums

    def gradient_norm(self) -> Tensor:
        """Return the norm of the whole gradient in true units; a 0-dim tensor on the device."""
        self._state.scaler.unscale_(self._state.optimizer)
        return global_norm(self._parameters)

    def update(self, norm: Tensor) -> Tensor:
        """Clip and update the weights; return the step's row for the log.

        The scaler of fp16 leaves the weights alone when the norm is not finite.
        """
        if self._clip_norm is not None:
            clip_by_norm(self._parameters, norm, self._clip_norm)
        self._state.scaler.step(self._state.optimizer)
        self._state.scaler.update()
        self._state.step += 1
        assert self._sums is not None
        return torch.cat([self._sums, torch.stack([norm, (~norm.isfinite()).to(norm.dtype)])])

    def _mixed(self, batch: TrainBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        inputs, labels, neighbour_labels = batch.inputs, batch.labels, None
        if self._alpha > 0:
            inputs = mix(inputs[1:], inputs[:-1], self._mix_weight)
            labels, neighbour_labels = labels[1:], labels[:-1]
        return inputs.contiguous(memory_format=self._layout), labels, neighbour_labels

    def _losses(self, logits: Tensor, labels: Tensor, neighbour_labels: Tensor | None) -> Tensor:
        """Smooth once, then mix: both are linear in the targets (paper.md trap 10)."""
        epsilon, form = self._smoothing.epsilon, self._smoothing.form
        losses = smoothed_cross_entropy(logits, labels, epsilon, form)
        if neighbour_labels is None:
            return losses
        other = smoothed_cross_entropy(logits, neighbour_labels, epsilon, form)
        return self._mix_weight * losses + (1 - self._mix_weight) * other

    def _summarise(self, objective: Tensor, logits: Tensor, labels: Tensor, neighbour_labels: Tensor | None) -> Tensor:
        """Return (3,): objective, plain cross-entropy and correct answers, the latter two mixed too."""
        predicted = logits.argmax(dim=1)

        def plain(of: Tensor) -> Tensor:
            return torch.stack([F.cross_entropy(logits, of, reduction="sum"), (predicted == of).sum().float()])

        values = plain(labels)
        if neighbour_labels is not None:
            values = self._mix_weight * values + (1 - self._mix_weight) * plain(neighbour_labels)
        return torch.cat([objective[None], values])

    def _seed_dropout(self, step: int) -> None:
        """Make dropout depend on (seed, step, rank), so that a resume needs no generator state."""
        seed = (self._seed * _RNG_STRIDE + step) * _RNG_STRIDE + self._worker.rank
        device = self._worker.device
        generator = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
        generator.manual_seed(seed % 2**63)
