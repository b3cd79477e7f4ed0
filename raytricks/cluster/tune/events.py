"""What happens to trials, as Ray Tune sees it: told to a listener and noted in the trials' files."""

from collections.abc import Callable
from dataclasses import replace
import queue
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from raytricks.cluster.requests import requested_stop
from raytricks.training.records import Record
from raytricks.tuning.study_task import StudyTask
from raytricks.tuning.trial_files import TrialState, epoch_records, read_state, trial_directory, write_state

Listener = Callable[[int, Record | None, str], None]


class TrialEvents(tune.Callback):
    """Notes which trials Tune stops or gives up; `poll` hands what happened to a listener.

    Ray Tune calls it in the thread that runs the trials, `poll` is for the main thread.
    """

    def __init__(self, task: StudyTask) -> None:
        self._task = task
        self._happened: queue.SimpleQueue[tuple[int, Record | None, str]] = queue.SimpleQueue()

    def __getstate__(self) -> dict[str, Any]:  # Tune saves its callbacks, which nobody reads
        return {}

    def poll(self, listener: Listener) -> None:
        """Tell a listener what has happened since the last call."""
        while not self._happened.empty():
            listener(*self._happened.get())

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        """Tell that a trial is being carried out."""
        self._happened.put((trial.config["number"], None, "running"))

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info) -> None:
        """Tell of an epoch."""
        if result.get("record"):
            self._happened.put((result["number"], result["record"], "replayed" if result["is_replayed"] else "running"))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        """Note that the scheduler stopped a trial, unless it ended by itself."""
        number = trial.config["number"]
        trial_dir = trial_directory(self._task.trials_dir, number)
        state = read_state(trial_dir)
        if state is None or requested_stop(self._task.trials_dir):
            return
        was_stopped = state.status == "running" and (trial.last_result or {}).get("record") is not None
        if was_stopped:
            epoch = len(epoch_records(trial_dir))
            reason = f"stopped by {self._task.base.tune.scheduler} at epoch {epoch}"
            state = replace(state, status="stopped", reason=reason)
            write_state(trial_dir, state)
        self._happened.put((number, None, "unfinished" if state.status == "running" else state.status))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info) -> None:
        """Note that a trial's process died more often than is allowed."""
        number = trial.config["number"]
        trial_dir = trial_directory(self._task.trials_dir, number)
        trial_dir.mkdir(parents=True, exist_ok=True)
        state = read_state(trial_dir)
        if state is None:
            values = trial.config.get("values") or self._task.points[number]
            state = TrialState(number=number, root_values=values, seed=self._task.seed_of(number))
        if not state.has_ended:
            lines = str(trial.get_error() or "").strip().splitlines()
            cause = next((line for line in reversed(lines) if line.strip()), "unknown cause")
            reason = f"its process failed {trial.num_failures} times, the last time with: {cause.strip()}"
            write_state(trial_dir, replace(state, status="failed", reason=reason))
        self._happened.put((number, None, "failed"))
