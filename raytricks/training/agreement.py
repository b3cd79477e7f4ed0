"""What workers must decide alike, though each sees its own machine: precision, and where they go on from."""

from pathlib import Path

from raytricks.config import ExperimentConfig
from raytricks.errors import CheckpointError
from raytricks.training import checkpoint as checkpoints
from raytricks.training.checkpoint import FoundCheckpoint
from raytricks.training.worker import Worker
from raytricks.tricks.mixed_precision import Precision, resolve_precision

_MOST_COMMON_LAST: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
"""A later one is computed by all that compute an earlier one."""


def with_agreed_precision(config: ExperimentConfig, worker: Worker) -> tuple[ExperimentConfig, str | None]:
    """Replace `hardware.precision: auto` by what every worker computes well. Collective.

    GPUs of several generations would scale the loss on some workers only, and add up gradients of different scales.

    Returns:
        The config, and a note for the user: what was agreed on, where no driver could know it; None elsewhere.
    """
    own = resolve_precision(config.hardware.precision, worker.device_type)
    if config.hardware.precision != "auto" or (worker.world_size == 1 and not config.most_workers):
        return config, None
    agreed = _MOST_COMMON_LAST[worker.largest_over_workers(_MOST_COMMON_LAST.index(own))]
    hardware = config.hardware.model_copy(update={"precision": agreed})
    differs = worker.largest_over_workers(int(agreed != own))
    note = f"precision {agreed} on all workers"
    note += ": some of their devices do not compute the one that others do" if differs else ""
    return config.model_copy(update={"hardware": hardware}), note


def agreed_checkpoint(directory: Path, worker: Worker) -> FoundCheckpoint | None:
    """Load the checkpoint that the first worker finds newest and sound: all workers that one, or none any. Collective.

    A worker that cannot read a file for a moment must not go on from an older one than the others.

    Raises:
        CheckpointError: there are checkpoints, but none is valid; or a worker cannot read the one that was chosen.
            Raised on all workers.
    """
    found: FoundCheckpoint | None = None
    error: CheckpointError | None = None
    if worker.is_first:
        try:
            found = checkpoints.newest_checkpoint(directory)
        except CheckpointError as failure:
            error = failure
    step = worker.largest_over_workers(-1 if found is None else found.step)
    if step >= 0 and not worker.is_first:
        try:
            found = checkpoints.load_checkpoint(directory, step)
        except CheckpointError as failure:
            error = failure
    if worker.largest_over_workers(int(error is not None)):
        raise error or CheckpointError(
            f"{directory}: another worker cannot read the checkpoint that all are to go on from; make sure that all "
            "nodes see the same files"
        )
    return found
