"""Carry out the trials of a study with Ray Tune, which decides what runs where and when, and no more.

The trials' own files hold their state: a study that was cut off is carried out again, and each
trial hands out what it has made before it goes on. Nothing that Tune has saved is read.
"""

from collections.abc import Callable
from dataclasses import replace
import importlib.util
import os
from pathlib import Path
import shutil
import time
from typing import Any

from raytricks.cluster.session import require_resources
from raytricks.cluster.trainer import RAY_FOLDER, FitThread, describe_failure
from raytricks.cluster.worker import STOP_FILE
from raytricks.config import ExperimentConfig
from raytricks.errors import ClusterError, ConfigError, InterruptedRun, RaytricksError
from raytricks.training.records import Record
from raytricks.tuning.study_task import StudyTask

_POLL_INTERVAL_S = 0.1
_STOP_WAIT_S = 15
_KEPT_EXPORTS = 4
"""States of a trial that others may still take over; Tune drops older ones."""
_NESTED_MEMORY_BYTES = 2**20
PAUSING = ("hyperband", "pbt")
"""Schedulers under which trials take turns."""
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even at verbosity 0 (Ray 2.60)
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # A trial that fails before its first epoch has no score to report
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}


def run_trials(
    task: StudyTask,
    *,
    resources: dict[str, float],
    use_gpu: bool,
    listener: Callable[[int, Record | None, str], None],
    stop_requested: Callable[[], int],
    trial_class: Any = None,
) -> None:
    """Carry out all trials that have not ended; returns when none is left to train.

    To be called inside `ray_session`. How the trials did is in their files, see `read_outcomes`: a
    trial that fails does not end the others.

    Args:
        resources: of the cluster, as `ray_session` yields them.
        use_gpu: one GPU a worker.
        listener: given, in this thread, trial number, record and status: (n, None, "running") when a trial
            begins or goes on, (n, record, "running") after an epoch, (n, record, "replayed") for an epoch made
            before, (n, None, status) at its end, with a status of `TrialOutcome`.
        stop_requested: polled; a signal number ends all trials, which keep what they have saved.
        trial_class: subclass of OneWorkerTrial to use in its place.

    Raises:
        ClusterError: not even one trial fits.
        ConfigError: sampler and scheduler do not go together.
        InterruptedRun: a stop was requested.
        RaytricksError: Ray Tune itself failed.
    """
    task = replace(task, trials_dir=task.trials_dir.resolve())
    slots = trial_slots(task.base, resources, use_gpu=use_gpu)
    _refuse_combination(task)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    task.trials_dir.mkdir(parents=True, exist_ok=True)
    stop_file = task.trials_dir / STOP_FILE
    stop_file.unlink(missing_ok=True)
    ray_folder = task.trials_dir.parent / RAY_FOLDER
    shutil.rmtree(ray_folder, ignore_errors=True)  # of a launch that was cut off

    from raytricks.cluster.tune_events import TrialEvents

    events = TrialEvents(task)
    fit = FitThread(_make_tuner(task, slots, resources, use_gpu, events, ray_folder, trial_class).fit)
    fit.start()
    while fit.is_alive():
        if signal_number := stop_requested():
            stop_file.write_text(str(signal_number))
            fit.join(_STOP_WAIT_S)
            events.poll(listener)
            raise InterruptedRun("the search was stopped; its trials are saved", signal_number)
        fit.join(_POLL_INTERVAL_S)
        events.poll(listener)
    events.poll(listener)
    if fit.error is not None:
        raise RaytricksError(f"{task.trials_dir}: {describe_failure(fit.error)}") from fit.error
    shutil.rmtree(ray_folder, ignore_errors=True)


def trial_slots(config: ExperimentConfig, resources: dict[str, float], *, use_gpu: bool) -> int:
    """Return how many trials are trained at a time.

    Raises:
        ClusterError: not even one trial fits.
    """
    num_workers, cpus = max(1, config.workers), cpus_per_trial_worker(config)
    require_resources(resources, num_workers=num_workers, cpus_per_worker=cpus, use_gpu=use_gpu)
    slots = int(resources.get("CPU", 0) // (num_workers * cpus))
    if use_gpu:
        slots = min(slots, int(resources.get("GPU", 0) // num_workers))
    return min(slots, config.tune.concurrent_trials or slots)


def cpus_per_trial_worker(config: ExperimentConfig) -> int:
    """Return the CPUs of each worker of a trial."""
    return config.hardware.cpus_per_worker or 1


def _refuse_combination(task: StudyTask) -> None:
    if task.base.tune.sampler == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "tune.sampler optuna needs the package optuna: pip install 'raytricks[optuna]', or set tune.sampler=random"
        )
    if task.base.tune.sampler == "optuna" and task.base.tune.scheduler == "pbt":
        raise ConfigError(
            "tune.sampler optuna chooses each trial's settings for good, tune.scheduler pbt changes them; set "
            "tune.sampler=random or tune.scheduler=asha"
        )


def _make_tuner(
    task: StudyTask, slots: int, resources: dict[str, float], use_gpu: bool, events, ray_folder: Path, trial_class
):
    from ray import tune

    from raytricks.cluster.tune_schedulers import METRIC, MODE, make_scheduler
    from raytricks.cluster.tune_nested import ManyWorkersTrial
    from raytricks.cluster.tune_trial import OneWorkerTrial

    default_class = ManyWorkersTrial if task.base.workers > 1 else OneWorkerTrial
    cpus = cpus_per_trial_worker(task.base)
    pauses = task.base.tune.scheduler in PAUSING
    trainable = tune.with_parameters(trial_class or default_class, task=task, cpus=cpus, use_gpu=use_gpu)
    return tune.Tuner(
        tune.with_resources(trainable, _per_trial(task, slots, resources, use_gpu)),
        param_space=_numbers(task),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode=MODE,
            scheduler=make_scheduler(task),
            search_alg=_search(task),
            num_samples=task.num_trials if task.base.tune.sampler == "optuna" else 1,
            max_concurrent_trials=None if pauses else slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"launch-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            storage_path=str(ray_folder),
            failure_config=tune.FailureConfig(max_failures=task.base.hardware.max_restarts),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=_KEPT_EXPORTS if pauses else None),
            callbacks=[events],
            stop=_stopper(task.trials_dir),
            verbose=0,
        ),
    )


def _per_trial(task: StudyTask, slots: int, resources: dict[str, float], use_gpu: bool) -> dict[str, float]:
    """Return what Tune sets aside for a trial.

    Where trials take turns, Tune must know of them all at once: what limits how many train at a time
    is then what each takes. A trial of several workers takes memory, which they do not ask for: their
    CPUs and GPUs are for themselves.
    """
    takes_turns = task.base.tune.scheduler in PAUSING
    if task.base.workers > 1:
        return {"memory": int(resources["memory"] // slots) if takes_turns else _NESTED_MEMORY_BYTES}
    cpus: float = cpus_per_trial_worker(task.base)
    if takes_turns and task.base.tune.concurrent_trials:
        cpus = max(cpus, resources["CPU"] / slots)
    return {"CPU": cpus} | ({"GPU": 1.0} if use_gpu else {})


def _numbers(task: StudyTask) -> dict[str, Any]:
    from ray import tune

    return {} if task.base.tune.sampler == "optuna" else {"number": tune.grid_search(list(range(task.num_trials)))}


def _search(task: StudyTask):
    """Return what draws the trials; None where they are numbered and drawn already."""
    if task.base.tune.sampler != "optuna":
        return None
    from raytricks.cluster.tune_schedulers import METRIC, MODE
    from raytricks.cluster.tune_search import NumberedOptuna

    return NumberedOptuna(task, METRIC, MODE)


def _stopper(trials_dir: Path):
    from ray import tune

    class StopRequest(tune.Stopper):
        """Ends all trials once the main thread has asked for it."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return (trials_dir / STOP_FILE).exists()

    return StopRequest()
