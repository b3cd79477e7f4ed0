"""A run on Ray Train: its trainer, begun again when its workers have to move."""

from contextlib import nullcontext
import os
import shutil
import time
from typing import Any

from ray import get_runtime_context
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.execution.callback import ControllerCallback

from raytricks.cluster.elastic import SaveBeforeResize, ScaleUp
from raytricks.cluster.failures import StopRepeatedFailures, is_halved
from raytricks.cluster.groups import free_after_death
from raytricks.cluster.requests import RAY_FOLDER, Requests
from raytricks.cluster.worker import train_worker
from raytricks.parts.bring import files_of, versions_of
from raytricks.training.loop import TrainingJob

_CLEANER = "PlacementGroupCleanerCallback"
_COLLECTIVE_TIMEOUT_S = 600
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


def fit_run(job: TrainingJob, data: Any, *, use_gpu: bool, cpus: int, is_paced: bool = False) -> None:
    """Train a run to its end with the workers of its config.

    Workers whose node is about to be taken away save and leave, and others go on at once; that counts
    as no failure. With a range of workers the next ones are no more than those that stay, until the node
    is gone and there is room for more: Ray Train counts on a node that is drained as on any other.
    Workers that go on with fewer images at once, out of memory, count as no failure either.

    Args:
        data: reference to `job.data` in Ray's object store.
        cpus: of each worker.
        is_paced: the workers wait after each epoch, see `raytricks.cluster.requests`.

    Raises:
        TrainingFailedError: Ray Train's; `raytricks.cluster.failures` makes one line of it.
    """
    config, requests = job.config, Requests(job.run_dir)
    most, scale_up = config.most_workers, nullcontext()
    try:
        while True:
            trainer = _make_trainer(job, data, most, use_gpu=use_gpu, cpus=cpus, is_paced=is_paced)
            try:
                with scale_up:
                    left = trainer.fit().return_value
            except TrainingFailedError as error:
                if not is_halved(error):
                    raise
                scale_up = nullcontext()
                continue  # with half the images at once; it ends at the fewest
            if left is None:
                return
            requests.take_back_leave()
            most, scale_up = config.most_workers, nullcontext()
            if left["draining"] and config.is_elastic:
                most = min(most, max(config.fewest_workers, left["num_staying"]))
                scale_up = ScaleUp(
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
    return _SteadyTrainer(
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
            callbacks=[StopRepeatedFailures(), SaveBeforeResize(run_dir), FreeResources()],  # type: ignore[list-item]
        ),
    )


class FreeResources(ControllerCallback):
    """Has the workers' resources freed when the controller is killed."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Begin to watch; Ray Train calls it in the controller."""
        free_after_death(get_runtime_context().get_actor_id() or "")


class _SteadyTrainer(TorchTrainer):
    """A TorchTrainer whose workers live as long as its controller, whatever else runs on the machine.

    The cleaner of Ray 2.60 asks the state API whether the controller lives. On a cluster without a
    dashboard, or with RAY_API_SERVER_ADDRESS set, another cluster answers that it knows no such actor,
    and the cleaner takes the workers' resources away. `FreeResources` stands in its place.
    """

    def _create_default_callbacks(self):
        return [one for one in super()._create_default_callbacks() if type(one).__name__ != _CLEANER]
