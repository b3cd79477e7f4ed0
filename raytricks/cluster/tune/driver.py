"""Carry out the trials of a study with Ray Tune, which decides what runs where and when, and no more.

The trials' own files hold their state: a study that was cut off is carried out again, and each
trial hands out what it has made before it goes on. Nothing that Tune has saved is read.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
import importlib.util
import os
import shutil
from typing import Any

from raytricks.cluster.placement import (
    Node,
    alive_nodes,
    cpus_per_trial_worker,
    require_chosen_device,
    require_room,
    room_for_workers,
)
from raytricks.cluster.requests import RAY_FOLDER, STOP_FILE
from raytricks.config import ExperimentConfig
from raytricks.errors import ClusterError, ConfigError
from raytricks.training.records import Record
from raytricks.tuning.rungs import TAKING_TURNS
from raytricks.tuning.study_task import StudyTask

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
    say: Callable[[str], None] = lambda line: None,
    started: Callable[[], None] = lambda: None,
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
        say: given lines while there is no room for a trial yet.
        started: called once there is room: from then on `stop_requested` is polled.

    Raises:
        ClusterError: not even one trial finds room in time, or a node does not see the study's directory.
        InterruptedRun: a stop was requested.
        RaytricksError: Ray Tune itself failed.
    """
    task = replace(task, trials_dir=task.trials_dir.resolve())
    from raytricks.cluster import room, shared  # the seam: Ray reads the environment when it is imported

    num_workers = max(1, task.base.most_workers)
    require_chosen_device([resources], task.base.hardware.device, use_gpu=use_gpu)
    room.await_room(
        num_workers=num_workers,
        most_workers=num_workers,
        cpus=cpus_per_trial_worker(task.base),
        use_gpu=use_gpu,
        wait_s=task.base.hardware.wait_s,
        say=say,
    )
    nodes = alive_nodes()
    resources = dict(sum((Counter(node) for node in nodes), Counter()))  # more may have come
    slots = trial_slots(task.base, nodes, use_gpu=use_gpu)
    _refuse_turns(task, slots, resources)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    task.trials_dir.mkdir(parents=True, exist_ok=True)
    stop_file = task.trials_dir / STOP_FILE
    stop_file.unlink(missing_ok=True)
    ray_folder = task.trials_dir.parent / RAY_FOLDER
    shutil.rmtree(ray_folder, ignore_errors=True)  # of a launch that was cut off

    shared.require_shared(task.trials_dir)
    from raytricks.cluster.tune.tuner import fit_trials  # the seam, again

    started()

    fit_trials(
        task,
        slots=slots,
        resources=resources,
        use_gpu=use_gpu,
        listener=listener,
        stop_requested=stop_requested,
        trial_class=trial_class,
    )
    shutil.rmtree(ray_folder, ignore_errors=True)


def trial_slots(config: ExperimentConfig, nodes: Sequence[Node], *, use_gpu: bool) -> int:
    """Return how many trials are trained at a time on nodes with such resources.

    Raises:
        ClusterError: not even one trial fits.
    """
    num_workers, cpus = max(1, config.most_workers), cpus_per_trial_worker(config)
    require_room(nodes, num_workers=num_workers, cpus_per_worker=cpus, use_gpu=use_gpu)
    slots = room_for_workers(nodes, cpus=cpus, use_gpu=use_gpu) // num_workers
    return min(slots, config.tune.concurrent_trials or slots)


def check_search(config: ExperimentConfig) -> None:
    """Raise ConfigError for elastic trials, and when the sampler is not installed or does not suit the scheduler."""
    if config.is_elastic:
        raise ConfigError(
            f"workers is {list(config.workers)}, a search needs to know how many workers a trial takes; set "  # type: ignore[arg-type]
            f"workers={config.fewest_workers}, more trials then run at a time"
        )
    if config.tune.sampler == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "tune.sampler optuna needs the package optuna: pip install 'raytricks[optuna]', or set tune.sampler=random"
        )
    if config.tune.sampler == "optuna" and config.tune.scheduler == "pbt":
        raise ConfigError(
            "tune.sampler optuna chooses each trial's settings for good, tune.scheduler pbt changes them; set "
            "tune.sampler=random or tune.scheduler=asha"
        )


def _refuse_turns(task: StudyTask, slots: int, resources: dict[str, float]) -> None:
    """Refuse what would wait for ever: on several nodes, trials of several workers do not take turns."""
    tune, workers = task.base.tune, task.base.most_workers
    num_nodes = sum(name.startswith("node:") and name != "node:__internal_head__" for name in resources)
    if workers > 1 and tune.scheduler in TAKING_TURNS and slots < task.num_trials and num_nodes > 1:
        raise ClusterError(
            f"tune.scheduler {tune.scheduler} needs all {task.num_trials} trials of workers={workers} at a time on a "
            f"cluster of several nodes, it holds {slots}; set tune.num_trials={slots}, workers=1 or tune.scheduler=asha"
        )
