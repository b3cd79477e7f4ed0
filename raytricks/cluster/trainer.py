"""A run on Ray Train: its trainer, the thread that it runs in, and what came of it."""

from collections.abc import Callable
import os
from pathlib import Path
import threading
import time
from typing import Any

from raytricks.cluster.worker import train_worker
from raytricks.errors import RaytricksError
from raytricks.training.loop import TrainingJob

RAY_FOLDER = ".ray"
_COLLECTIVE_TIMEOUT_S = 600


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


def make_trainer(job: TrainingJob, data: Any, *, use_gpu: bool, cpus: int, is_paced: bool = False):
    """Return a Ray Train trainer of a run.

    Args:
        data: reference to `job.data` in Ray's object store.
        cpus: of each worker.
        is_paced: the workers wait after each epoch, see `raytricks.cluster.pace`.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    assignment = {
        "config": job.config.model_dump_json(),
        "data": data,
        "run_dir": str(job.run_dir.resolve()),
        "cpus_per_worker": cpus,
        "is_paced": is_paced,
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
            storage_path=str((job.run_dir / RAY_FOLDER).resolve()),
            failure_config=FailureConfig(max_failures=job.config.hardware.max_restarts),
        ),
    )


def raise_outcome(fit: FitThread, run_dir: Path) -> None:
    """Raise what ended a run that `make_trainer`'s trainer has carried out, if it failed.

    Raises:
        RaytricksError: with the worker's own message.
    """
    if fit.error is not None:
        raise RaytricksError(f"{run_dir}: {describe_failure(fit.error)}") from fit.error
    outcome = fit.result.return_value
    if outcome is not None:
        raise outcome["error"]


def describe_failure(error: BaseException) -> str:
    """Name the rank and the last line of the worker's own traceback."""
    failures = getattr(error, "worker_failures", None) or {}
    for rank, failure in sorted(failures.items()):
        last_line = str(failure).strip().splitlines()[-1]
        return f"worker {rank} failed: {last_line}"
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
