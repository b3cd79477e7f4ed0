"""The Tuner of Ray Tune for a study's trials, and the thread that it runs in."""

from collections.abc import Callable
import os
from pathlib import Path
import time
from typing import Any

from ray import tune

from raytricks.cluster.failures import as_raytricks_error
from raytricks.cluster.follower import FitThread
from raytricks.cluster.placement import alive_nodes, cpus_per_trial_worker
from raytricks.cluster.requests import RAY_FOLDER, STOP_FILE
from raytricks.cluster.tune.events import TrialEvents
from raytricks.cluster.tune.nested import ManyWorkersTrial
from raytricks.cluster.tune.schedulers import METRIC, MODE, make_scheduler
from raytricks.cluster.tune.trial import OneWorkerTrial
from raytricks.errors import InterruptedRun
from raytricks.training.records import Record
from raytricks.tuning.rungs import TAKING_TURNS
from raytricks.tuning.study_task import StudyTask

_KEPT_EXPORTS = 4
"""States of a trial that others may still take over; Tune drops older ones."""
_NESTED_MEMORY_BYTES = 2**20
_POLL_INTERVAL_S = 0.1
_STOP_WAIT_S = 15


def fit_trials(
    task: StudyTask,
    *,
    slots: int,
    resources: dict[str, float],
    use_gpu: bool,
    listener: Callable[[int, Record | None, str], None],
    stop_requested: Callable[[], int],
    trial_class: type[OneWorkerTrial] | None,
) -> None:
    """Have the trials carried out, in a thread; arguments as of `run_trials` and `make_tuner`.

    Raises:
        InterruptedRun: a stop was requested.
        RaytricksError: Ray Tune itself failed.
    """
    events = TrialEvents(task)
    tuner = make_tuner(
        task,
        slots=slots,
        resources=resources,
        use_gpu=use_gpu,
        events=events,
        folder=task.trials_dir.parent / RAY_FOLDER,
        trial_class=trial_class,
    )
    fit = FitThread(tuner.fit)
    fit.start()
    while fit.is_alive():
        if signal_number := stop_requested():
            (task.trials_dir / STOP_FILE).write_text(str(signal_number))
            fit.join(_STOP_WAIT_S)
            events.poll(listener)
            raise InterruptedRun("the search was stopped; its trials are saved", signal_number)
        fit.join(_POLL_INTERVAL_S)
        events.poll(listener)
    events.poll(listener)
    if fit.error is not None:
        raise as_raytricks_error(fit.error, task.trials_dir) from fit.error


def make_tuner(
    task: StudyTask,
    *,
    slots: int,
    resources: dict[str, float],
    use_gpu: bool,
    events: TrialEvents,
    folder: Path,
    trial_class: type[OneWorkerTrial] | None = None,
) -> tune.Tuner:
    """Return the Tuner that carries out the trials of a study.

    Args:
        slots: trials at a time.
        resources: of the cluster.
        folder: for what Tune writes.
        trial_class: in place of the one that the config's workers ask for.
    """
    trial_class = trial_class or (ManyWorkersTrial if task.base.most_workers > 1 else OneWorkerTrial)
    cpus = cpus_per_trial_worker(task.base)
    takes_turns = task.base.tune.scheduler in TAKING_TURNS
    draws = task.base.tune.sampler == "optuna"
    trainable = tune.with_parameters(trial_class, task=task, cpus=cpus, use_gpu=use_gpu)
    return tune.Tuner(
        tune.with_resources(trainable, _per_trial(task, slots, resources, use_gpu)),
        param_space={} if draws else {"number": tune.grid_search(list(range(task.num_trials)))},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode=MODE,
            scheduler=make_scheduler(task),
            search_alg=_optuna(task) if draws else None,
            num_samples=task.num_trials if draws else 1,
            max_concurrent_trials=None if takes_turns else slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"launch-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            storage_path=str(folder),
            failure_config=tune.FailureConfig(max_failures=task.base.hardware.max_restarts),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=_KEPT_EXPORTS if takes_turns else None),
            callbacks=[events],
            stop=StopRequest(task.trials_dir / STOP_FILE),
            verbose=0,
        ),
    )


class StopRequest(tune.Stopper):
    """Ends all trials once a file is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Leave single trials to themselves."""
        return False

    def stop_all(self) -> bool:
        """Return whether all trials are to end."""
        return self._path.exists()


def _per_trial(task: StudyTask, slots: int, resources: dict[str, float], use_gpu: bool) -> dict[str, float]:
    """Return what Tune sets aside for a trial.

    Where trials take turns, Tune must know of them all at once: what limits how many train at a time
    is then what each takes. A trial of several workers takes memory, which they do not ask for: the
    CPUs and GPUs are for them.
    """
    takes_turns = task.base.tune.scheduler in TAKING_TURNS
    if task.base.most_workers > 1:
        most = min(resources["memory"] / slots, _largest("memory"))
        return {"memory": int(most) if takes_turns else _NESTED_MEMORY_BYTES}
    cpus: float = cpus_per_trial_worker(task.base)
    if takes_turns and task.base.tune.concurrent_trials:
        cpus = max(cpus, min(resources["CPU"] / slots, _largest("CPU")))
    return {"CPU": cpus} | ({"GPU": 1.0} if use_gpu else {})


def _largest(resource: str) -> float:
    """Return what the largest node has: for more, Ray would wait for ever."""
    return max((node.get(resource, 0.0) for node in alive_nodes()), default=0.0)


def _optuna(task: StudyTask):
    from raytricks.cluster.tune.search import NumberedOptuna  # an extra

    return NumberedOptuna(task, METRIC, MODE)
