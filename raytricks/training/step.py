"""One optimizer step: forward and backward of its micro-batches, then the update.

    begin:                  lr, blend, dropout seed of the step
    for each micro-batch:   forward (autocast) -> losses -> scaled backward
    after the last:         unscale -> norm -> clip -> update (or skip, fp16) -> next scale -> average

The objective of a micro-batch is the SUM over its images divided by the global batch, so
uneven shares and accumulation give exactly the gradient of the global mean (DDP averages over
workers, hence the factor world_size). No trick is known here by name: what is on comes in through
the slots of raytricks.parts.hooks.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import TrainBatch
from raytricks.data.randomness import step_generator
from raytricks.errors import ConfigError
from raytricks.parts.hooks import Blend
from raytricks.recipe.chain import Chain, chosen_call
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.resolve import training_sides
from raytricks.training.loss import Targets, plain_sums
from raytricks.training.restoring import BufferSnapshot
from raytricks.training.state import TrainingState
from raytricks.training.worker import Worker
from raytricks.tricks.gradient_clipping import global_norm
from raytricks.tricks.mixed_precision import Precision, autocast

_RNG_STRIDE = 1_000_003  # spreads (seed, step, rank) over the generator's seeds
_CHOICE = "blend"  # the stream that chooses between several blends of a step


class Stepper:
    """Makes the steps of one worker in one phase of a run.

    Args:
        config: resolved, of the phase.
        precision: fp32, fp16 or bf16.
        carried: what the parts carry through the run, by their names; see the slot `state`.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        recipe: Recipe,
        state: TrainingState,
        worker: Worker,
        precision: Precision,
        carried: Mapping[str, Any] | None = None,
    ) -> None:
        self._config = config
        self._recipe = recipe
        self._state = state
        self._worker = worker
        self._precision: Precision = precision
        self._carried = carried or state.carried
        self._sides = training_sides(config)
        self._layout = torch.channels_last if config.hardware.channels_last else torch.contiguous_format
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        chain = Chain(config)
        self._blends, self._targets, self._losses = (chain.calls(slot) for slot in ("blend", "targets", "losses"))
        self._measures, self._gradients = chain.calls("measure"), chain.calls("gradients")
        self._after_step = chain.calls("after_step")
        self._loss = chosen_call(config, "loss", "loss")
        self.measured = tuple(name for call in self._measures for name in call.hooks.measured)
        # only the loss scaler goes on after a step that overflowed
        self._guard = BufferSnapshot(state.model) if state.scaler.is_enabled() else None
        self._blend: Blend | None = None
        self._sums: Tensor | None = None
        self._figures: list[Tensor] = []

    def begin(self) -> None:
        """Prepare the next step: its learning rate and its random numbers."""
        step = self._state.step + 1
        lr = self._recipe.lr(step)
        for group in self._state.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self._blend = self._draw_blend(step)
        self._seed_dropout(step)
        if self._guard is not None:
            self._guard.remember()
        self._state.optimizer.zero_grad(set_to_none=True)
        self._sums, self._figures = None, []

    def accumulate(self, batch: TrainBatch) -> None:
        """Add the gradient of one micro-batch; the last one also sums it over the workers."""
        is_silent = self._worker.world_size > 1 and not batch.is_last_of_step
        with self._state.ddp_model.no_sync() if is_silent else nullcontext():  # type: ignore[operator]
            inputs, targets = self._blended(batch)
            with autocast(self._worker.device_type, self._precision):
                logits = self._state.ddp_model(inputs)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            losses = self._losses_of(logits, targets, inputs, batch)
            if self._sums is None:  # the first micro-batch stands for the step
                self._figures = [self._measure(call, losses) for call in self._measures]
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
        """Update the weights and what follows them; return the step's row for the log.

        The scaler of fp16 leaves the weights alone when the norm is not finite.
        """
        state = self._state
        is_finite = norm.isfinite()
        for call in self._gradients:
            call(parameters=self._parameters, norm=norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        if self._guard is not None:
            self._guard.restore_unless(is_finite)
        for call in self._after_step:
            call(state=self._carried.get(call.part.name), step=state.step)
        assert self._sums is not None
        return torch.cat([self._sums, torch.stack([norm, ~is_finite]).float(), *self._figures])

    def _draw_blend(self, step: int) -> Blend | None:
        """Draw the step's blend from (seed, step): equal on every worker and after a resume; of several, one."""
        epoch = self._recipe.epoch_of(step)
        side, epochs_left = self._sides[epoch], self._config.recipe.epochs - epoch
        drawn = [
            blend
            for call in self._blends
            if (blend := call(rng=self._rng(step, call.part.name), side=side, epochs_left=epochs_left)) is not None
        ]
        if len(drawn) > 1:
            return drawn[int(self._rng(step, _CHOICE).random() * len(drawn))]
        return drawn[0] if drawn else None

    def _rng(self, step: int, name: str):
        return step_generator(self._config.seed, step, name)

    def _blended(self, batch: TrainBatch) -> tuple[Tensor, Targets]:
        inputs, labels, neighbour_labels = batch.inputs, batch.labels, None
        if self._blends:  # each batch brings the left neighbour of its first image
            inputs, neighbours = inputs[1:], inputs[:-1]
            labels, neighbour_labels = labels[1:], labels[:-1]
            if self._blend is not None:
                inputs = self._blend.apply(inputs, neighbours)
        return inputs.contiguous(memory_format=self._layout), Targets(labels, neighbour_labels, self._blend)

    def _losses_of(self, logits: Tensor, targets: Targets, inputs: Tensor, batch: TrainBatch) -> Tensor:
        losses = self._loss(logits=logits, targets=targets.probabilities(logits.shape[1], logits.dtype, self._soften))
        if losses.shape != targets.labels.shape:
            name = self._config.loss.name
            raise ConfigError(f"loss {name}: got {tuple(losses.shape)} for {len(targets.labels)} images; return (n,)")
        for call in self._losses:
            state = self._carried.get(call.part.name)
            losses = call(losses=losses, logits=logits, inputs=inputs, batch=batch, state=state)
        return losses

    def _soften(self, one_hot: Tensor) -> Tensor:
        for call in self._targets:
            one_hot = call(targets=one_hot)
        return one_hot

    def _measure(self, call, losses: Tensor) -> Tensor:
        state = self._state
        return call(losses=losses, parameters=self._parameters, scaler=state.scaler, step=state.step + 1)

    def _seed_dropout(self, step: int) -> None:
        """Make dropout depend on (seed, step, rank), so that a resume needs no generator state."""
        seed = (self._config.seed * _RNG_STRIDE + step) * _RNG_STRIDE + self._worker.rank
        device = self._worker.device
        generator = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
        generator.manual_seed(seed % 2**63)
