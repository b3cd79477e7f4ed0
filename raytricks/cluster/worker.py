"""What each Ray Train worker runs: a thin shell around `run_epochs`."""

from collections.abc import Callable
import json
from pathlib import Path
import socket
import time
from typing import Any

import ray
from ray import train
from ray.train.torch import get_device
import torch

from raytricks.cluster.elastic import preempted_nodes
from raytricks.cluster.failures import WorkerFailure
from raytricks.cluster.requests import EpochBarrier, Requests
from raytricks.config.schemas import config_sent
from raytricks.errors import InterruptedRun, RaytricksError
from raytricks.training.allocator import keep_freed_memory
from raytricks.training.fencing import require_visible
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.signals import LEAVE
from raytricks.training.worker import Worker

_TELL_WAIT_S = 2.0


def train_worker(assignment: dict[str, Any]) -> dict[str, Any] | None:
    """Train this worker's share and report each epoch to Ray.

    Args:
        assignment: config (JSON), files and versions (of the user's own parts), data (object reference), run_dir,
            launch, cpus_per_worker; is_paced: wait after each epoch for the next to be granted.

    Returns:
        None when the run is finished. After the workers were asked to leave: num_staying, of the workers
        those on nodes that stay, and draining, the ids of the other nodes.

    Raises:
        WorkerFailure: for the driver.
    """
    worker = _this_worker(assignment["cpus_per_worker"])
    requests = Requests(Path(assignment["run_dir"]))

    def asked() -> int:
        return requests.pending() or (LEAVE if preempted_nodes() else 0)

    try:
        has_left = not _train(assignment, worker, asked)
    except InterruptedRun as stop:
        if stop.signal_number != LEAVE:
            raise WorkerFailure.of(stop, worker.rank) from None
        has_left = True
    except Exception as error:
        if isinstance(error, RaytricksError) and not worker.is_first:
            time.sleep(_TELL_WAIT_S)  # where all workers agree, the first one's message is the one to show
        raise WorkerFailure.of(error, worker.rank) from None
    finally:
        if worker.is_first:
            requests.note_left()  # also at the end and after a failure: who waits need not wait longer
    if not has_left:
        return None
    draining = preempted_nodes()
    leaving = {rank for ranks in draining.values() for rank in ranks}
    return {"num_staying": worker.world_size - len(leaving), "draining": list(draining)}


def _this_worker(cpus: int) -> Worker:
    keep_freed_memory()
    torch.set_num_threads(cpus)
    context = train.get_context()
    device = get_device()
    assert isinstance(device, torch.device)
    return Worker(context.get_world_rank(), context.get_world_size(), device, context.get_local_world_size())


def _train(assignment: dict[str, Any], worker: Worker, asked: Callable[[], int]) -> bool:
    """Train until the run is finished; False when it was left while waiting for the next epoch to be granted."""
    run_dir = Path(assignment["run_dir"])
    require_visible(run_dir, assignment["launch"], host=socket.gethostname())
    job = TrainingJob(
        config=config_sent(json.loads(assignment["config"]), assignment["files"], assignment["versions"]),
        data=ray.get(assignment["data"]),
        run_dir=run_dir,
        launch=assignment["launch"],
    )
    if worker.is_first:
        Requests(run_dir).note_running()
    for record in run_epochs(job, worker, stop_requested=asked):
        train.report({name: value for name, value in record.items() if name != "kind"})
        is_last = record["epoch"] == job.config.recipe.epochs
        if assignment["is_paced"] and not is_last:
            barrier = EpochBarrier(run_dir)
            if not barrier.wait_after(record["epoch"], is_first=worker.is_first, stop_requested=asked):
                return False
    return True
