"""The training loop, as a generator that yields once an epoch.

    restore the newest valid checkpoint, if any
    for each epoch:
        change the settings, where the config says so
        for each step of the epoch's order (from the restored one on):
            micro-batches -> gradient (again with fewer images at once, when out of memory) -> check it -> update
            now and then: fetch the step log, write it, save a checkpoint, obey a stop request
        average batch-norm statistics -> save -> evaluate -> write the epoch -> yield

An epoch is saved before it is evaluated, which may fail or be cut off: a run that goes on from there
evaluates it first, unless its record is written.

Every worker runs it in lockstep; the first one writes the files. What decides a collective
(a stop, a save, a fetch) depends on the step or is agreed over the workers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
import time

import torch
from torch import Tensor

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import TrainBatch
from raytricks.data.prepared import LabelledImages, PreparedData
from raytricks.errors import InterruptedRun, NonFiniteError, RaytricksError
from raytricks.inference.answers import fits
from raytricks.inference.trained_model import Execution
from raytricks.recipe.chain import Chain, metrics_of
from raytricks.training.agreement import with_agreed_precision
from raytricks.training.auto_micro_batch import AutoMicroBatch, free_memory, is_out_of_memory
from raytricks.training.evaluation import evaluate
from raytricks.training.loss import RunContext
from raytricks.training.optimizer import change_settings
from raytricks.training.phases import PhaseShare, phase_at, share_phases
from raytricks.training.records import Record
from raytricks.training.restoring import BufferSnapshot
from raytricks.training.run_files import RunFiles
from raytricks.training.state import build_state
from raytricks.training.step import Stepper
from raytricks.training.step_log import TOTALS, StepLog, add_to_totals, epoch_summary, interval_summary
from raytricks.training.worker import Worker
from raytricks.tricks.batch_norm_averaging import share_first_batch_norm_buffers

MAX_SKIPPED_IN_A_ROW = 20  # a healthy fp16 run skips a step or two when the scale doubles


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train and where to write it; plain values that travel to workers.

    Attributes:
        config: resolved.
        run_dir: the run's directory, on storage that all workers see.
        launch: of `raytricks.training.fencing`; None where a lock keeps others from the run.
    """

    config: ExperimentConfig
    data: PreparedData
    run_dir: Path
    launch: str | None = None


def run_epochs(
    job: TrainingJob,
    worker: Worker,
    *,
    stop_requested: Callable[[], int] = lambda: 0,
    listener: Callable[[Record], None] | None = None,
) -> Iterator[Record]:
    """Train, yielding the metrics of each epoch; resumes from the run's newest valid checkpoint.

    Args:
        stop_requested: polled on the first worker between steps, on all while they evaluate; a signal number (or
            `signals.LEAVE`) asks to save and stop.
        listener: given each record that is written, on the first worker.

    Raises:
        NonFiniteError: loss or gradient is NaN or infinite.
        InterruptedRun: a stop was requested; the state was saved.
        CheckpointError: checkpoints exist but none is valid, or one cannot be written.
        RaytricksError: out of memory, and no fewer images at once are possible or allowed.
        torch.OutOfMemoryError: so is one of several workers; begun again, all take fewer images at once.
    """
    run = _Run(job, worker, stop_requested, listener)
    try:
        yield from run.epochs()
    except Exception as error:
        if is_out_of_memory(error):
            raise run.fitting.ending(run.phase.config, run.parallel.micro_batch_size) from error
        if not isinstance(error, RaytricksError):
            error.add_note(f"in step {run.state.step + 1}")  # the same failure at the same step comes again
        raise
    finally:
        run.close()


class _Run:
    """The pieces of one training run, wired together."""

    def __init__(self, job: TrainingJob, worker: Worker, stop_requested, listener) -> None:
        config, precision_note = with_agreed_precision(job.config, worker)
        self.job, self.config, self.worker = job, config, worker
        self.fitting = AutoMicroBatch(job.run_dir, config, worker)
        notes = (
            precision_note,
            self.fitting.found_before(),
            self.fitting.bound_by_memory(config, job.data.num_classes),
        )
        self.phases = share_phases(config, job.data, worker, self.fitting.training)
        first = self.phases[0]
        self.files = RunFiles(job.run_dir, config, worker, job.launch)
        self.state = build_state(
            config,
            class_names=job.data.class_names,
            worker=worker,
            precision=first.parallel.precision,
            is_resumed=self.files.newest is not None,
            run=RunContext(config=config, data=job.data, batches=first.batches, worker=worker, parallel=first.parallel),
        )
        chain = Chain(config)
        self.log = StepLog(worker, [name for call in chain.calls("measure") for name in call.hooks.measured])
        self._metrics = metrics_of(config)
        self._step_totals, self._summaries = chain.calls("step_totals"), chain.calls("summary")
        self._before_epoch, self._before_evaluation = chain.calls("before_epoch"), chain.calls("before_evaluation")
        # Agreeing stalls a GPU's queue of work, so several workers with GPUs do it once an interval
        is_free = worker.device.type == "cpu" or worker.world_size == 1
        self.check_every = 1 if is_free else config.logging.every_steps
        self._stop_requested = stop_requested
        self.files.restore(self.state)
        self.files.open_records(self.state.step, listener)
        for note in filter(None, notes):
            self.files.write("note", step=self.state.step, epoch=0, text=note)
        self._answers: dict[str, Tensor] | None = None  # of the last evaluation; empty but on the first worker
        self.rewind = BufferSnapshot(self.state.model) if self.fitting.redoes_steps else None
        self._is_unevaluated = self._ends_unevaluated()
        self._begin_phase(phase_at(self.phases, self.state.step - self._is_unevaluated))
        self.files.describe(job.data, self._execution())

    def epochs(self) -> Iterator[Record]:
        """Make the epochs that are left; then score the test images, once, and write the models."""
        if self._is_unevaluated:
            yield self.write_epoch(self.recipe.epoch_of(self.state.step))
        for epoch in range(self.recipe.epoch_of(self.state.step + 1), self.recipe.epochs):
            if epoch == self.phase.end_epoch:
                self._begin_phase(phase_at(self.phases, self.state.step))
            self.train_epoch(epoch)
            self.save_epoch(epoch)
            yield self.write_epoch(epoch)
        if self._answers is None:  # resumed after the last evaluation
            self._evaluate(self.job.data.evaluation, "val")
        answers = self._answers or {}
        if self.job.data.test is not None:
            self._score_test(self.job.data.test)
        self.files.save_models(self.state, self.job.data, answers)

    def close(self) -> None:
        """Close the run's files."""
        self.files.close()

    def _ends_unevaluated(self) -> bool:
        """Say whether the restored state is of an epoch's end whose record was not written any more. Collective."""
        state = self.state
        if not state.epoch_totals["images"] or not phase_at(self.phases, state.step).recipe.ends_epoch(state.step):
            return False
        metrics = self.files.metrics_at(state.step)
        if self.worker.largest_over_workers(int(self.worker.is_first and metrics is None)):
            return True
        state.begin_epoch(metrics or {})
        return False

    def _begin_phase(self, phase: PhaseShare) -> None:
        """Go on with the settings of a phase; the state stays."""
        self.phase, self.recipe, self.parallel = phase, phase.recipe, phase.parallel
        change_settings(self.state.optimizer, self.state.model, phase.config)
        self.stepper = Stepper(
            phase.config,
            phase.recipe,
            self.state,
            self.worker,
            phase.parallel.precision,
        )

    # -- one epoch ------------------------------------------------------------------------

    def train_epoch(self, epoch: int) -> None:
        """Make the steps that are left of an epoch."""
        for call in self._before_epoch:
            note = call(state=self.state.carried.get(call.part.name), epoch=epoch)
            if note is not None:
                self._write("note", epoch, text=note)
        self.state.ddp_model.train()
        self._mark_s = time.perf_counter()
        for _ in self._gradients(epoch):
            norm = self.stepper.gradient_norm()
            if self.worker.device.type == "cpu":
                self._require_finite(float(norm), self.state.step + 1)
            self.log.add(self.stepper.update(norm))
            self._between_steps(epoch)
        self._flush(epoch)

    def _gradients(self, epoch: int) -> Iterator[None]:
        """Yield once for each step left of an epoch, when its gradient is there."""
        while True:
            first_step = self.state.step - self.recipe.steps_before(epoch)
            batches = self._waited_for(self.phase.batches.epoch(epoch, first_step))
            try:
                while self._accumulate_step(batches):
                    yield
                return
            except (RuntimeError, MemoryError) as error:
                note = self.fitting.halve_training(error, self.phase.config, self.parallel.micro_batch_size)
                if note is None:
                    raise
            del batches  # after the error is forgotten too: both hold images
            self._take_step_back()
            self._write("note", epoch, text=note)

    def _accumulate_step(self, batches: Iterator[TrainBatch]) -> bool:
        """Add up the gradient of the next step; False when there is none."""
        batch = next(batches, None)
        if batch is None:
            return False
        if self.rewind is not None:
            self.rewind.remember()
        self.stepper.begin()
        self.stepper.accumulate(batch)
        while not batch.is_last_of_step:
            batch = next(batches)
            self.stepper.accumulate(batch)
        return True

    def _take_step_back(self) -> None:
        """Undo what a step that did not fit has begun, and cut it into smaller micro-batches."""
        assert self.rewind is not None
        self.state.optimizer.zero_grad(set_to_none=True)
        self.rewind.restore()
        free_memory()
        self.phases = share_phases(self.config, self.job.data, self.worker, self.fitting.training)
        self.phase = phase_at(self.phases, self.state.step)
        self.parallel = self.phase.parallel

    def _waited_for(self, batches: Iterator[TrainBatch]) -> Iterator[TrainBatch]:
        """Yield batches, adding up the time until each is there."""
        while True:
            asked_s = time.perf_counter()
            batch = next(batches, None)
            self.state.epoch_totals["data_wait_s"] += time.perf_counter() - asked_s
            if batch is None:
                return
            yield batch

    def _between_steps(self, epoch: int) -> None:
        step = self.state.step
        if step % self.config.logging.every_steps == 0:
            self._flush(epoch)
        every = self.config.checkpoint.every_steps
        if every and step % every == 0 and not self.recipe.ends_epoch(step):
            self._save(epoch)
        if step % self.check_every == 0:
            self._obey_stop(epoch)

    def save_epoch(self, epoch: int) -> None:
        """Make the statistics of all workers equal, and save."""
        for model in self.state.models:
            for call in self._before_evaluation:
                call(model=model)
            share_first_batch_norm_buffers(model)  # what no part has made equal on all workers
        self._save(epoch)

    def write_epoch(self, epoch: int) -> Record:
        """Evaluate a saved epoch and write its record, which is returned."""
        started_s = time.perf_counter()
        is_evaluated = (epoch + 1) % self.config.logging.evaluate_every == 0 or epoch + 1 == self.recipe.epochs
        metrics = self._evaluate(self.job.data.evaluation, "val") if is_evaluated else {}
        record = {
            **epoch_summary(self.state.epoch_totals, self.recipe.global_batch_size, self._summaries),
            **metrics,
            "lr": self.recipe.lr(self.state.step),
            "loss_scale": self.state.scaler.get_scale(),
            "val_s": time.perf_counter() - started_s,
        }
        if metrics:
            self.files.save_best(self.state, self.job.data, metrics, self._answers or {})
        self._write("epoch", epoch, **record)
        self.state.begin_epoch(metrics)
        self._mark_s = time.perf_counter()  # evaluating is not training time
        return {"kind": "epoch", "step": self.state.step, "epoch": epoch + 1, **record}

    # -- pieces ---------------------------------------------------------------------------

    def _flush(self, epoch: int) -> None:
        """Fetch the step log, check it, add it to the epoch's totals and write one line."""
        first = self.state.step - len(self.log) + 1
        rows = self.log.fetch()
        if not rows:
            return
        elapsed_s = time.perf_counter() - self._mark_s  # after fetch: the device has caught up
        self._mark_s = time.perf_counter()
        for offset, row in enumerate(rows):
            self._check_row(row, first + offset)
        batch = self.recipe.global_batch_size
        sums: dict[str, float] = dict.fromkeys(TOTALS, 0.0)
        add_to_totals(sums, rows, batch, self._step_totals)
        sums["seconds"] = elapsed_s
        for name, value in sums.items():
            self.state.epoch_totals[name] = self.state.epoch_totals.get(name, 0.0) + value
        self._write(
            "step",
            epoch,
            **interval_summary(sums, len(rows), batch),
            grad_norm=rows[-1]["grad_norm"],
            lr=self.recipe.lr(self.state.step),
            loss_scale=self.state.scaler.get_scale(),
        )

    def _check_row(self, row: dict[str, float], step: int) -> None:
        if not row["skipped"]:
            self.state.skipped_in_a_row = 0
            return
        self._require_finite(row["grad_norm"], step)
        self.state.skipped_in_a_row += 1
        if self.state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"step {step}: {MAX_SKIPPED_IN_A_ROW} steps in a row overflowed in fp16; the last checkpoint is kept; "
                "set hardware.precision=bf16 or fp32, or lower recipe.base_lr"
            )

    def _require_finite(self, norm: float, step: int) -> None:
        """Stop on a gradient that is NaN or infinite; it was summed over workers, so all agree."""
        is_finite = norm - norm == 0
        if is_finite or self.state.scaler.is_enabled():  # the scaler skips such a step by itself
            return
        raise NonFiniteError(
            f"step {step} (epoch {self.recipe.epoch_of(step) + 1}): the gradient is {norm} at lr "
            f"{self.recipe.lr(step):g}; the last checkpoint is kept; lower recipe.base_lr, lengthen tricks.warmup or "
            "set recipe.clip_norm"
        )

    def _obey_stop(self, epoch: int) -> None:
        """Save and stop when the first worker was asked to; agreed over all workers."""
        asked = self._stop_requested() if self.worker.is_first else 0
        if self.worker.world_size > 1:
            asked = int(self.worker.sum_over_workers(torch.tensor(asked, device=self.worker.device)))
        if not asked:
            return
        self._flush(epoch)
        if self.recipe.ends_epoch(self.state.step):
            self.save_epoch(epoch)
        else:
            self._save(epoch)
        raise InterruptedRun(f"stopped after step {self.state.step}; saved", asked)

    def _evaluate(self, data: LabelledImages, prefix: str) -> dict[str, float]:
        """Measure the model, and each of its shadows as `prefix`_NAME."""
        metrics: dict[str, float] = {}
        self._answers = {}
        names = (prefix, *(f"{prefix}_{name}" for name in self.state.shadows))
        for model, name in zip(self.state.models, names, strict=True):
            measured, logits = self._measure(model, data)
            if logits is not None:
                self._answers[name] = logits
            metrics |= {f"{name}_{key}": value for key, value in measured.items()}
        return metrics

    def _measure(self, model: torch.nn.Module, data: LabelledImages) -> tuple[dict[str, float], Tensor | None]:
        """Return what was measured and, on the first worker, the logits of all images."""
        keeps = fits(len(data), self.job.data.num_classes)
        while True:
            batch_size, answers = min(len(data), self._evaluation_batch()), []
            try:
                measured = evaluate(
                    model,
                    data,
                    self.job.data.transform,
                    num_classes=self.job.data.num_classes,
                    worker=self.worker,
                    batch_size=batch_size,
                    precision=self.parallel.precision,
                    channels_last=self.config.hardware.channels_last,
                    metrics=self._metrics,
                    stop_requested=self._stop_requested,
                    answers=answers if keeps else None,
                )
                none = torch.zeros(0, self.job.data.num_classes, device=self.worker.device)
                return measured, self.worker.gather_rows(torch.cat([none, *answers])) if keeps else None
            except (RuntimeError, MemoryError) as error:
                note = self.fitting.halve_evaluation(error, batch_size)
                if note is None:
                    raise
            free_memory()
            self._write("note", self.recipe.epoch_of(self.state.step), text=note)

    def _evaluation_batch(self) -> int:
        return self.fitting.evaluation_batch(self.job.data.transform.image_size)

    def _execution(self) -> Execution:
        return Execution(
            precision=self.parallel.precision,
            channels_last=self.config.hardware.channels_last,
            batch_size=self._evaluation_batch(),
        )

    def _score_test(self, test: LabelledImages) -> None:
        metrics = self._evaluate(test, "test")
        self._write("test", self.recipe.epochs - 1, **metrics)
        self.state.last_metrics = self.state.last_metrics | metrics

    def _write(self, kind: str, epoch: int, **values) -> None:
        self.files.write(kind, step=self.state.step, epoch=epoch + 1, **values)

    def _save(self, epoch: int) -> None:
        self._flush(epoch)
        self.files.save(self.state)
        self._mark_s = time.perf_counter()  # saving is not training time
