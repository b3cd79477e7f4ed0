"""A run on Ray Train: its trainer, begun again when its workers have to move, and the thread that it runs in."""

from collections.abc import Callable
from contextlib import nullcontext
import os
from pathlib import Path
import shutil
import threading
import time
from typing import Any

from raytricks.cluster.requests import Requests
from raytricks.cluster.worker import train_worker
from raytricks.parts.bring import files_of, versions_of
from raytricks.training.loop import TrainingJob

RAY_FOLDER = ".ray"
_COLLECTIVE_TIMEOUT_S = 600
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


class FitThread(threading.Thread):
    """Runs a `fit()`, so that the main thread keeps the signals and the screen.

    Attributes:
        result: what it returned.
        error: what it raised.
    """

    def __init__(self, fit: Callable[[], Any]) -> None:
        super().__init__(name="raytricks-fit", daemon=True)
        self._fit = fit
        self.error: BaseException | None = None
        self.result: Any = None

    def run(self) -> None:
        try:
            self.result = self._fit()
        except BaseException as error:  # noqa: BLE001 (handed to the main thread)
            self.error = error


def fit_run(job: TrainingJob, data: Any, *, use_gpu: bool, cpus: int, is_paced: bool = False) -> None:
    """Train a run to its end with the workers of its config.

    Workers whose node is about to be taken away save and leave, and others go on at once; that counts
    as no failure. With a range of workers the next ones are no more than those that stay, until the node
    is gone and there is room for more: Ray Train counts on a node that is drained as on any other.

    Args:
        data: reference to `job.data` in Ray's object store.
        cpus: of each worker.
        is_paced: the workers wait after each epoch, see `raytricks.cluster.pace`.

    Raises:
        TrainingFailedError: Ray Train's; `raytricks.cluster.failures` makes one line of it.
    """
    from raytricks.cluster.regrowth import Regrowth

    config, requests = job.config, Requests(job.run_dir)
    most, regrowth = config.most_workers, nullcontext()
    try:
        while True:
            trainer = _make_trainer(job, data, most, use_gpu=use_gpu, cpus=cpus, is_paced=is_paced)
            with regrowth:
                left = trainer.fit().return_value
            if left is None:
                return
            requests.take_back_leave()
            most, regrowth = config.most_workers, nullcontext()
            if left["draining"] and config.is_elastic:
                most = min(most, max(config.fewest_workers, left["num_staying"]))
                regrowth = Regrowth(
                    requests,
                    most,
                    left["draining"],
                    cpus=cpus,
                    use_gpu=use_gpu,
                    every_s=config.hardware.resize_every_s,
                )
    finally:
        shutil.rmtree(job.run_dir / RAY_FOLDER, ignore_errors=True)  # its bookkeeping is of no use to anyone


def _make_trainer(job: TrainingJob, data: Any, most_workers: int, *, use_gpu: bool, cpus: int, is_paced: bool):
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from raytricks.cluster.failures import StopRepeatedFailures
    from raytricks.cluster.resizing import SaveBeforeResize
    from raytricks.cluster.steady_trainer import SteadyTrainer

    config, run_dir = job.config, job.run_dir.resolve()
    os.environ[_START_TIMEOUT] = str(config.hardware.start_timeout_s)
    assignment = {
        "config": config.model_dump_json(),
        "files": files_of(config.brought),
        "versions": versions_of(config.brought),
        "data": data,
        "run_dir": str(run_dir),
        "launch": job.launch,
        "cpus_per_worker": cpus,
        "is_paced": is_paced,
    }
    return SteadyTrainer(
        train_worker,
        train_loop_config=assignment,
        scaling_config=ScalingConfig(
            num_workers=(config.fewest_workers, most_workers) if config.is_elastic else config.most_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if use_gpu else {}),
            elastic_resize_monitor_interval_s=config.hardware.resize_every_s,
        ),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=_COLLECTIVE_TIMEOUT_S),
        # A name of its own for each launch: Ray would inherit an older launch's bookkeeping
        run_config=RunConfig(
            name=f"launch-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns()}",
            storage_path=str(run_dir / RAY_FOLDER),
            failure_config=FailureConfig(max_failures=config.hardware.max_restarts, max_preemption_failures=-1),
            callbacks=[StopRepeatedFailures(), SaveBeforeResize(run_dir)],  # type: ignore[list-item]
        ),
    )


def remove_old_launches(run_dir: Path) -> None:
    """Remove what Ray Train has kept of launches that were killed."""
    shutil.rmtree(run_dir / RAY_FOLDER, ignore_errors=True)
