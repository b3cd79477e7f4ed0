"""What each Ray Train worker runs: a thin shell around `run_epochs`."""

from pathlib import Path
from typing import Any

from raytricks.config import ExperimentConfig

STOP_FILE = ".stop-requested"
"""In the run's directory; holds a signal number, written by the driver."""


def train_worker(assignment: dict[str, Any]) -> dict[str, Any] | None:
    """Train this worker's share and report each epoch to Ray.

    Args:
        assignment: config (JSON), data (object reference), run_dir, cpus_per_worker; is_paced: wait after
            each epoch for the next to be granted.

    Returns:
        None, or {"error": ...} for a failure that a restart would only repeat.
    """
    import ray
    from ray import train
    from ray.train.torch import get_device
    import torch

    from raytricks.cluster.pace import Pace
    from raytricks.errors import RaytricksError
    from raytricks.training.allocator import keep_freed_memory
    from raytricks.training.loop import TrainingJob, run_epochs
    from raytricks.training.worker import Worker

    keep_freed_memory()
    torch.set_num_threads(assignment["cpus_per_worker"])
    context = train.get_context()
    device = get_device()
    assert isinstance(device, torch.device)
    worker = Worker(context.get_world_rank(), context.get_world_size(), device)
    run_dir = Path(assignment["run_dir"])
    job = TrainingJob(
        config=ExperimentConfig.model_validate_json(assignment["config"]),
        data=ray.get(assignment["data"]),
        run_dir=run_dir,
    )
    try:
        for record in run_epochs(job, worker, stop_requested=lambda: requested_stop(run_dir)):
            train.report({name: value for name, value in record.items() if name != "kind"})
            is_last = record["epoch"] == job.config.recipe.epochs
            if (
                assignment["is_paced"]
                and not is_last
                and not Pace(run_dir).wait_after(
                    record["epoch"], is_first=worker.is_first, stop_requested=lambda: requested_stop(run_dir)
                )
            ):
                return None
    except RaytricksError as error:
        return {"error": error}
    return None


def requested_stop(run_dir: Path) -> int:
    """Return the signal number that the driver passed on, or 0."""
    try:
        return int((run_dir / STOP_FILE).read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0
