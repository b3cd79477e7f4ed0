"""Launch the Ray workers of a run, follow their records, pass signals on."""

from collections.abc import Callable
import os
from pathlib import Path
import threading
import time
from typing import Any

from raytricks.cluster.session import ray_session, require_resources
from raytricks.cluster.worker import STOP_FILE, train_worker
from raytricks.errors import RaytricksError
from raytricks.training.loop import TrainingJob
from raytricks.training.records import METRICS_FILE, Record, read_records

_FOLLOW_INTERVAL_S = 0.2
_COLLECTIVE_TIMEOUT_S = 600
_RAY_FOLDER = ".ray"


def train_on_ray(
    job: TrainingJob,
    *,
    use_gpu: bool,
    listener: Callable[[Record], None],
    stop_requested: Callable[[], int],
    started: Callable[[], None] = lambda: None,
) -> None:
    """Train with `job.config.workers` Ray Train workers; returns when the run is finished.

    The decoded data goes to Ray's object store once; workers of a node share it.

    Args:
        listener: given each record that the workers write.
        stop_requested: polled; a signal number is passed on to the workers, which save and stop.
        started: called once the cluster is there and large enough.

    Raises:
        ClusterError: no cluster, or too small a one.
        RaytricksError: what ended the training, with the worker's own message.
    """
    with ray_session() as resources:
        config = job.config
        cpus = config.hardware.cpus_per_worker or cpus_per_worker(resources, config.workers)
        require_resources(resources, num_workers=config.workers, cpus_per_worker=cpus, use_gpu=use_gpu)
        started()
        (job.run_dir / STOP_FILE).unlink(missing_ok=True)
        fit = _FitThread(_make_trainer(job, use_gpu, cpus))
        follower = _Follower(job.run_dir / METRICS_FILE, listener)
        fit.start()
        is_stopping = False
        while fit.is_alive():
            signal_number = stop_requested()
            if signal_number and not is_stopping:
                is_stopping = True
                (job.run_dir / STOP_FILE).write_text(str(signal_number))
            fit.join(_FOLLOW_INTERVAL_S)
            follower.poll()
        follower.poll()
        (job.run_dir / STOP_FILE).unlink(missing_ok=True)
        _raise_outcome(fit, job.run_dir)


def cpus_per_worker(resources: dict[str, float], num_workers: int) -> int:
    """Return an even share of the cluster's CPUs, at least one."""
    return max(1, int(resources.get("CPU", 1) // num_workers))


def _make_trainer(job: TrainingJob, use_gpu: bool, cpus: int):
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    assignment = {
        "config": job.config.model_dump_json(),
        "data": ray.put(job.data),
        "run_dir": str(job.run_dir.resolve()),
        "cpus_per_worker": cpus,
    }
    per_worker = {"CPU": cpus} | ({"GPU": 1} if use_gpu else {})
    return TorchTrainer(
        train_worker,
        train_loop_config=assignment,
        scaling_config=ScalingConfig(num_workers=job.config.workers, use_gpu=use_gpu, resources_per_worker=per_worker),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=_COLLECTIVE_TIMEOUT_S),
        # A name of its own for each launch: Ray would inherit an older launch's bookkeeping
        run_config=RunConfig(
            name=f"launch-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            storage_path=str((job.run_dir / _RAY_FOLDER).resolve()),
            failure_config=FailureConfig(max_failures=job.config.hardware.max_restarts),
        ),
    )


class _FitThread(threading.Thread):
    """Runs `trainer.fit()`, so that the main thread keeps the signals and the screen."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(name="raytricks-fit", daemon=True)
        self._trainer = trainer
        self.error: BaseException | None = None
        self.result: Any = None

    def run(self) -> None:
        try:
            self.result = self._trainer.fit().return_value
        except BaseException as error:  # noqa: BLE001 (handed to the main thread)
            self.error = error


class _Follower:
    """Hands the new lines of a metrics file to a listener."""

    def __init__(self, path: Path, listener: Callable[[Record], None]) -> None:
        self._path = path
        self._listener = listener
        self._seen = len(read_records(path))
        self._size = -1

    def poll(self) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        if size == self._size:
            return
        self._size = size
        records = read_records(self._path)
        self._seen = min(self._seen, len(records))  # a restart forgets what came after its checkpoint
        for record in records[self._seen :]:
            self._listener(record)
        self._seen = len(records)


def _raise_outcome(fit: _FitThread, run_dir: Path) -> None:
    if fit.error is not None:
        raise RaytricksError(f"{run_dir}: {_describe(fit.error)}") from fit.error
    if fit.result is not None:
        error = fit.result["error"]
        raise error


def _describe(error: BaseException) -> str:
    """Name the rank and the last line of the worker's own traceback."""
    failures = getattr(error, "worker_failures", None) or {}
    for rank, failure in sorted(failures.items()):
        last_line = str(failure).strip().splitlines()[-1]
        return f"worker {rank} failed: {last_line}"
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
