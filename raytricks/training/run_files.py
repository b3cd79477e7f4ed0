"""A run's files as the training loop uses them: checkpoints, records and the finished models."""

from collections.abc import Callable
from functools import partial
import json
from pathlib import Path

import torch
from torch import Tensor

from raytricks.config.schema import ExperimentConfig
from raytricks.data.prepared import PreparedData
from raytricks.errors import CheckpointError, RaytricksError
from raytricks.files import write_atomically
from raytricks.inference.answers import ANSWERS_FILE, Answers, calibrated, write_answers
from raytricks.inference.model_file import describe_model, save_model
from raytricks.inference.trained_model import Execution
from raytricks.recipe.chain import callbacks_of
from raytricks.retries import is_passing, with_retries
from raytricks.training import checkpoint as checkpoints
from raytricks.training.agreement import agreed_checkpoint
from raytricks.training.fencing import require_newest
from raytricks.training.records import METRICS_FILE, Record, RecordWriter, drop_records_after, read_records
from raytricks.training.state import TrainingState, worker_buffers
from raytricks.training.trackers import open_trackers
from raytricks.training.worker import Worker

_HAS_SAVED = ".has-saved"
StateDict = dict[str, Tensor]
CHECKPOINTS, MODEL_FILE, BEST_FILE = "checkpoints", "model.safetensors", "model_best.safetensors"
DESCRIPTION_FILE = "model.json"
"""What the checkpoints are of; a model file says it itself."""


def shadow_file(name: str) -> str:
    """Return the file of a second set of weights that a part keeps."""
    return f"model_{name}.safetensors"


class RunFiles:
    """Reads and writes a run's directory; only the first worker writes. Making one is collective.

    Args:
        launch: see `raytricks.training.fencing`.

    Raises:
        CheckpointError: checkpoints exist, or have existed, but none is valid.
    """

    def __init__(self, run_dir: Path, config: ExperimentConfig, worker: Worker, launch: str | None = None) -> None:
        self._run_dir, self._config, self._worker, self._launch = run_dir, config, worker, launch
        self.newest = agreed_checkpoint(run_dir / CHECKPOINTS, worker)
        if self.newest is None and (run_dir / _HAS_SAVED).exists():
            raise CheckpointError(
                f"{run_dir / CHECKPOINTS} is gone or empty, though the run had saved checkpoints; put it back, or "
                "start a new run"
            )
        self._lost_steps = 0
        self._best_top1 = -1.0
        self._workers_before: int | None = None
        self._writer: RecordWriter | None = None
        self._execution = Execution()
        self._is_finished = False

    def restore(self, state: TrainingState) -> None:
        """Put the newest checkpoint into `state`, and forget the records after it. Collective.

        Raises:
            CheckpointError: it is of another model.
        """
        if self.newest is not None:
            try:
                state.load(self.newest.content, self._worker)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise CheckpointError(
                    f"{self.newest.path} is of another model or version of raytricks ({str(error).splitlines()[0]}); "
                    "put the run's own checkpoints back, or start a new run"
                ) from error
            self._workers_before = len(self.newest.content["worker_buffers"])
        if self._worker.is_first:
            checkpoints.clean_temporary(self._run_dir / CHECKPOINTS)
            records = read_records(self._run_dir / METRICS_FILE)
            self._lost_steps = max(0, max((record["step"] for record in records), default=0) - state.step)
            # those who went on from this checkpoint and did not come to save another
            since = [record["workers"] for record in records if "workers" in record and record["step"] >= state.step]
            self._workers_before = since[-1] if since else self._workers_before
            drop_records_after(self._run_dir / METRICS_FILE, state.step)
            kept = (record.get("val_top1", -1.0) for record in records if record["step"] <= state.step)
            self._best_top1 = max(kept, default=-1.0)
        self._worker.wait_for_all()

    def metrics_at(self, step: int) -> dict[str, float] | None:
        """Return what the epoch that ends with a step was measured by, on the first worker; None without its record."""
        if not self._worker.is_first:
            return None
        records = read_records(self._run_dir / METRICS_FILE)
        found = [record for record in records if record["kind"] == "epoch" and record["step"] == step]
        if not found:
            return None
        return {name: value for name, value in found[-1].items() if name.startswith("val_") and name != "val_s"}

    def open_records(self, step: int, listener: Callable[[Record], None] | None) -> None:
        """Begin to write records; says where a resumed run goes on from."""
        if not self._worker.is_first:
            return
        trackers, problems = open_trackers(self._run_dir, self._config)
        callbacks = callbacks_of(self._config)
        self._writer = RecordWriter(
            self._run_dir,
            tensorboard=self._config.logging.tensorboard,
            purge_step=step,
            listener=listener,
            trackers=trackers,
            callbacks=[partial(call, run_dir=self._run_dir) for call in callbacks],
        )
        for line in problems:
            self.write("note", step=step, epoch=0, text=line)
        if self.newest is not None:
            for line in self.newest.rejected:
                self.write("note", step=step, epoch=0, text=f"damaged checkpoint left out: {line}")
            self._note_begin(step, f"resumed from {self.newest.path.name}")
        elif self._lost_steps:
            self._note_begin(0, "begun again, nothing was saved before")

    def write(self, kind: str, *, step: int, epoch: int, **values) -> None:
        """Write one record, on the first worker."""
        if self._writer is not None:
            self._writer.write(kind, step=step, epoch=epoch, **values)

    def close(self) -> None:
        """Close the record files."""
        if self._writer is not None:
            self._writer.close(ok=self._is_finished)

    def save(self, state: TrainingState) -> None:
        """Save a checkpoint. Collective.

        Raises:
            CheckpointError: the disk is full or not writable; raised on all workers.
            NonFiniteError: the weights are poisoned.
            RaytricksError: another launch carries the run out.
        """
        buffers = self._worker.gather_to_first(worker_buffers(state.models))
        failure: RaytricksError | None = None
        if self._worker.is_first:
            try:
                require_newest(self._run_dir, self._launch)
                content, keep = state.content(buffers), self._config.checkpoint.keep
                folder = self._run_dir / CHECKPOINTS
                with_retries(
                    lambda: checkpoints.save_checkpoint(folder, state.step, content, keep=keep),
                    str(folder),
                    passes=lambda error: is_passing(error.__cause__),
                    note=lambda line: self.write("note", step=state.step, epoch=0, text=line),
                )
                (self._run_dir / _HAS_SAVED).touch()
            except RaytricksError as error:
                failure = error
        self._raise_on_all(failure)

    def save_models(self, state: TrainingState, data: PreparedData, answers: Answers) -> None:
        """Write the finished model and, when there is one, its average, on the first worker. Collective.

        Raises:
            CheckpointError: as of `save`.
            RaytricksError: another launch carries the run out.
        """
        failure: RaytricksError | None = None
        if self._worker.is_first:
            try:
                require_newest(self._run_dir, self._launch)
                self._write_models(state, data, answers)
            except RaytricksError as error:
                failure = error
        self._raise_on_all(failure)
        self._is_finished = True

    def describe(self, data: PreparedData, execution: Execution) -> None:
        """Write what the checkpoints are of, on the first worker."""
        self._execution = execution
        if self._worker.is_first:
            described = describe_model(self._config.model, data, execution=execution)
            write_atomically(self._run_dir / DESCRIPTION_FILE, json.dumps(described, indent=1).encode())

    def save_best(self, state: TrainingState, data: PreparedData, metrics: dict[str, float], answers: Answers) -> None:
        """Keep the weights of an epoch with a higher top-1 than any before, on the first worker."""
        if not self._worker.is_first or metrics["val_top1"] <= self._best_top1:
            return
        self._best_top1 = metrics["val_top1"]
        of_model = {name: value for name, value in metrics.items() if not self._is_of_shadow(name, state)}
        self._save_model(BEST_FILE, state.model.state_dict(), data, of_model, answers.get("val"))

    def _is_of_shadow(self, metric: str, state: TrainingState) -> bool:
        return any(f"_{name}_" in metric for name in state.shadows)

    def _save_model(
        self,
        file: str,
        weights: StateDict,
        data: PreparedData,
        metrics: dict[str, float],
        logits: Tensor | None,
    ) -> None:
        calibration = None if logits is None else calibrated(logits.cpu().numpy(), data.evaluation.labels)
        save_model(
            self._run_dir / file,
            weights,
            self._config.model,
            data,
            metrics,
            execution=self._execution,
            calibration=calibration,
        )

    def _write_models(self, state: TrainingState, data: PreparedData, answers: Answers) -> None:
        of_model = dict(state.last_metrics)
        for name, module in state.shadows.items():
            own = {n: of_model.pop(n) for n in state.last_metrics if f"_{name}_" in n}
            of_shadow = {n.replace(f"_{name}_", "_"): value for n, value in own.items()}
            self._save_model(shadow_file(name), module.state_dict(), data, of_shadow, answers.get(f"val_{name}"))
        self._save_model(MODEL_FILE, state.model.state_dict(), data, of_model, answers.get("val"))
        write_answers(self._run_dir / ANSWERS_FILE, answers, data.evaluation.labels)

    def _note_begin(self, step: int, how: str) -> None:
        """Tell how a run goes on: steps to make again, another number of workers than trained before."""
        again = f", {self._lost_steps} steps are made again" if self._lost_steps else ""
        before, now = self._workers_before, self._worker.world_size
        change = f", on {now} workers instead of {before}" if before not in (None, now) else ""
        self.write("note", step=step, epoch=0, text=how + again + change, workers=now)

    def _raise_on_all(self, failure: RaytricksError | None) -> None:
        """Raise the first worker's failure; stop the others too, which would wait for it. Collective."""
        failed = torch.tensor(int(failure is not None), device=self._worker.device)
        has_failed = bool(self._worker.sum_over_workers(failed))
        if failure is not None:
            raise failure
        if has_failed:
            raise CheckpointError("the first worker could not save; its message says why")
