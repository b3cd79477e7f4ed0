"""One trial: hand out the epochs that its files hold, train the rest, and note how it ended."""

from collections.abc import Callable, Iterator
from dataclasses import replace
import fcntl
import gc
import json
from pathlib import Path
import time
import traceback
from typing import IO, Any

import torch

from raytricks.config.run_code import keep_code
from raytricks.errors import InterruptedRun, RaytricksError
from raytricks.recipe.phases import make_phases
from raytricks.training.checkpoint import newest_checkpoint
from raytricks.training.loop import TrainingJob
from raytricks.training.records import METRICS_FILE, Record
from raytricks.training.run_directory import LOG_FILE, data_fingerprint, write_config, write_run_file
from raytricks.training.run_files import CHECKPOINTS
from raytricks.tuning.pbt import finish_adoption
from raytricks.tuning.study_task import StudyTask, TrialData
from raytricks.tuning.trial_files import (
    TrialState,
    epoch_records,
    padded,
    read_state,
    trial_config,
    trial_directory,
    write_state,
)

OUT_OF_TIME = "the time budget was used up"
_LOCK = ".lock"
_LOCK_WAIT_S = 30
TrainEpochs = Callable[[TrainingJob], Iterator[Record]]
"""Trains a run from its newest checkpoint on, yielding the record of each epoch once it is saved."""


class TrialRun:
    """A trial being carried out; its trial.json follows.

    Args:
        task: the study's.
        number: of the trial.
        values: of a trial that has no trial.json yet; None: the task's point.
        data: gives the trial its images.
        train: trains it.

    Attributes:
        state: what trial.json says.
        num_replayed: epochs that need not be trained again.
        is_interrupted: it was asked to stop, and goes on another time.
    """

    def __init__(
        self, task: StudyTask, number: int, values: dict[str, Any] | None, *, data: TrialData, train: TrainEpochs
    ) -> None:
        self.task = task
        self.trial_dir = trial_directory(task.trials_dir, number)
        self.trial_dir.mkdir(parents=True, exist_ok=True)
        self.is_interrupted = False
        self._data, self._train = data, train
        self._lock = _take_lock(self.trial_dir)
        self._training: Iterator[Record] | None = None
        self.state = self._open(number, values)
        self._kept = self._kept_records()
        self.num_replayed = len(self._kept)

    @property
    def last_epoch(self) -> int:
        """The epoch, counted from 1, after which there is nothing more to come."""
        return self.num_replayed if self.state.status == "stopped" else self.task.base.recipe.epochs

    def epochs(self) -> Iterator[Record]:
        """Yield the record of each epoch: those made before at once, then those trained now.

        Any failure of the training ends the iteration and is noted in trial.json and the trial's log.
        A finished trial has its model written before the last record comes.
        """
        is_unfinished = self.state.status == "running"
        held: list[Record] = []
        for record in self._kept:
            if is_unfinished and record["epoch"] == self.task.base.recipe.epochs:
                held = [record]  # killed between the last epoch and its model
            else:
                yield record
        if is_unfinished:
            yield from self._rest(held)

    def close(self) -> None:
        """Let go of the trial; what is unfinished can go on from its newest checkpoint."""
        close = getattr(self._training, "close", None)
        if close is not None:
            close()
        self._lock.close()

    # -- pieces ---------------------------------------------------------------------------

    def _open(self, number: int, values: dict[str, Any] | None) -> TrialState:
        finish_adoption(self.trial_dir)
        state = read_state(self.trial_dir)
        if state is None:
            point = self.task.points[number] if values is None else values
            plain = json.loads(json.dumps(point))
            state = TrialState(number=number, root_values=plain, seed=self.task.seed_of(number))
        if not state.has_ended:
            state = replace(state, status="running", reason=None)
            is_new = not epoch_records(self.trial_dir) and not (self.trial_dir / CHECKPOINTS).exists()
            deadline = self.task.deadline
            if is_new and number and deadline is not None and time.time() > deadline:
                state = replace(state, status="unfinished", reason=OUT_OF_TIME)
            write_state(self.trial_dir, state)
        return state

    def _kept_records(self) -> list[Record]:
        """Return the records of the epochs that need not be trained again."""
        records = epoch_records(self.trial_dir)
        if self.state.has_ended or not records:
            return records
        found = newest_checkpoint(self.trial_dir / CHECKPOINTS)
        return [] if found is None else [record for record in records if record["step"] <= found.step]

    def _rest(self, held: list[Record]) -> Iterator[Record]:
        """Yield what is trained now; the last epoch's record, perhaps `held`, once the trial is finished."""
        try:
            for record in self._trained():
                if record["epoch"] < self.task.base.recipe.epochs:
                    yield record
                else:
                    held = [record]
            self._note(status="finished")
        except InterruptedRun:
            self.is_interrupted = True
        except Exception as error:  # whatever ends one trial must not end the others
            self._note_failure(error)
            held = []
        yield from held

    def _trained(self) -> Iterator[Record]:
        started_s = time.monotonic()
        given = self.task.configs
        config = trial_config(self.task.base, self.state) if given is None else given[self.state.number]
        write_config(self.trial_dir, config)
        self._write_facts(config)
        times = padded(self.state.epoch_times, self.num_replayed, self.trial_dir / METRICS_FILE)
        self.state = replace(self.state, epoch_times=times)
        job = TrainingJob(config=config, data=self._data.of(config), run_dir=self.trial_dir)
        self._training = self._train(job)
        for record in self._training:
            if record["epoch"] <= self.num_replayed:  # made again after a damaged checkpoint
                continue
            spent_s = time.monotonic() - started_s
            self._note(epoch_times=(*self.state.epoch_times, time.time()), train_s=self.state.train_s + spent_s)
            yield record
            started_s = time.monotonic()

    def _write_facts(self, config) -> None:
        recipes = [s.recipe.as_dict() for s in make_phases(config, len(self.task.splits.train))]
        facts = {
            "seed": config.seed,
            "parts": keep_code(self.trial_dir, config.brought),
            "data": data_fingerprint(self.task.splits),
            "recipe": recipes[0],
            "changed_recipes": recipes[1:],
            "trial": self.state.number,
        }
        write_run_file(self.trial_dir, facts)

    def _note(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        write_state(self.trial_dir, self.state)

    def _note_failure(self, error: Exception) -> None:
        with (self.trial_dir / LOG_FILE).open("a") as log:
            log.write("".join(traceback.format_exception(error)))
        self._note(status="failed", reason=describe(error))
        self._training = None
        traceback.clear_frames(error.__traceback__)  # they hold the model, for which memory was too small
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def describe(error: BaseException) -> str:
    """Return one line that says why a trial failed."""
    text = str(error).strip().splitlines()
    if isinstance(error, RaytricksError) and text:
        return text[0]
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _take_lock(trial_dir: Path) -> IO[str]:
    """Keep others from the trial until the file is closed; a process that was killed may still be going away."""
    lock = (trial_dir / _LOCK).open("w")
    give_up_at = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                lock.close()
                raise RaytricksError(f"{trial_dir}: another process trains this trial; end it and resume") from None
            time.sleep(0.1)
