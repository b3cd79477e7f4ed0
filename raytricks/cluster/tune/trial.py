"""A trial that needs one worker, in an actor that stays for trial after trial: torch is imported once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune
import torch

from raytricks.cluster.requests import requested_stop
from raytricks.limits import usable_cpus
from raytricks.training.allocator import keep_freed_memory
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.records import Record
from raytricks.training.worker import Worker
from raytricks.tuning.pbt import adopt_state, export_state
from raytricks.tuning.rungs import first_rung
from raytricks.tuning.study_task import StudyTask, TrialData
from raytricks.tuning.trial_files import trial_directory
from raytricks.tuning.trial_run import TrialRun

POINTER_FILE = "trial.txt"
"""Stands for a trial that pauses and goes on from its own files."""


class OneWorkerTrial(tune.Trainable):
    """Carries out one trial at a time; its files, not this object, hold its state.

    A trial that fails is done, with its reason, and reports no score: raising would cost the actor.
    """

    def setup(self, config: dict[str, Any], task: StudyTask, cpus: int, use_gpu: bool) -> None:
        """Prepare for any number of trials of `task`; `config` is of the first, see `trial_result`."""
        keep_freed_memory()
        torch.set_num_threads(cpus)
        self._task = task
        device = torch.device("cuda", 0) if use_gpu else torch.device("cpu")
        self._worker = Worker(device=device, num_local=max(1, usable_cpus() // cpus))
        self._data = TrialData(task.splits, task.base, task.data)
        self._is_pbt = task.base.tune.scheduler == "pbt"
        self._run: TrialRun | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let go of the trial at hand and take another; its files are opened by the first step."""
        self.cleanup()
        self._number: int = new_config["number"]
        self._values: dict[str, Any] | None = new_config.get("values")
        self._is_known = False
        return True

    def step(self) -> dict[str, Any]:
        """Make one epoch, or hand out one that is made already."""
        if self._run is None:
            self._begin()
        assert self._run is not None
        return trial_result(self._run, next(self._epochs, None))

    def train_epochs(self, job: TrainingJob) -> Iterator[Record]:
        """Train a run, yielding its epochs."""
        keeps_epochs_whole = self._task.base.tune.scheduler == "pbt"
        return run_epochs(job, self._worker, stop_requested=(lambda: 0) if keeps_epochs_whole else self._requested_stop)

    def save_checkpoint(self, checkpoint_dir: str) -> str:
        """Give Tune what another trial may continue from."""
        trial_dir = trial_directory(self._task.trials_dir, self._number)
        if self._is_pbt:
            export_state(trial_dir, Path(checkpoint_dir))
        else:
            (Path(checkpoint_dir) / POINTER_FILE).write_text(str(self._number))
        return checkpoint_dir

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Continue from what `save_checkpoint` wrote, perhaps of another trial, with this trial's values."""
        self.cleanup()
        self._is_known = True
        source = Path(checkpoint)
        if self._values is None or (source / POINTER_FILE).exists():
            return
        self._begin()  # makes its files and keeps others out
        assert self._run is not None
        if adopt_state(self._run.trial_dir, source, self._values, self._task.base):
            self.cleanup()

    def cleanup(self) -> None:
        """Let go of the trial; what it has saved stays."""
        run, self._run = getattr(self, "_run", None), None
        if run is not None:
            run.close()

    def _begin(self) -> None:
        self._run = TrialRun(self._task, self._number, self._values, data=self._data, train=self.train_epochs)
        self._epochs = self._run.epochs()
        # Population-based training judges where a trial stands now, not where it stood
        known = self._run.num_replayed if self._is_known else self._run.num_replayed - 1 if self._is_pbt else 0
        for _ in range(known):
            next(self._epochs)

    def _requested_stop(self) -> int:
        return requested_stop(self._task.trials_dir)


def trial_result(run: TrialRun, record: Record | None) -> dict[str, Any]:
    """Return what Tune is told after an epoch, or at the end of a trial that has no more to come.

    Returns:
        number, record, is_replayed, done; with a record also val_top1, training_iteration, which is the
        epoch, and judged_epochs, which are counted from the first that trials are judged after.
    """
    result: dict[str, Any] = {"number": run.state.number, "record": record, "done": record is None}
    if record is None:
        return result
    epoch = record["epoch"]
    return result | {
        "is_replayed": epoch <= run.num_replayed,
        "val_top1": record.get("val_top1", 0.0),  # not evaluated in every epoch when default and winner are retrained
        "training_iteration": epoch,
        "judged_epochs": max(0, epoch + 1 - first_rung(run.task.base)),
        "done": epoch >= run.last_epoch,
    }
