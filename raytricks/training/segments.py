"""A worker's share of each segment of a run: all that depends on its settings and holds no state."""

from collections.abc import Sequence
from dataclasses import dataclass

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import TrainBatches
from raytricks.data.prepared import PreparedData, with_augmentation
from raytricks.recipe.augmentation import image_tricks
from raytricks.recipe.blending import blends_images
from raytricks.recipe.changes import make_segments
from raytricks.recipe.execution import Execution, plan_execution
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.resolution import training_sides
from raytricks.training.worker import Worker


@dataclass(frozen=True, kw_only=True)
class SegmentShare:
    """What a worker needs between two changes; see `raytricks.recipe.changes.Segment`."""

    config: ExperimentConfig
    recipe: Recipe
    end_epoch: int
    execution: Execution
    batches: TrainBatches


def share_segments(
    config: ExperimentConfig, data: PreparedData, worker: Worker, fitting_images: int | None = None
) -> list[SegmentShare]:
    """Return this worker's share of every segment of a run, so that what is wrong shows before the first step.

    Args:
        fitting_images: as of `plan_execution`.

    Raises:
        ConfigError: a change, or the share that it leaves to a worker, is not possible.
        DataError: fewer training images than one global batch.
    """
    shares = []
    for segment in make_segments(config, len(data.train)):
        execution = plan_execution(
            segment.config,
            num_workers=worker.world_size,
            device_type=worker.device_type,
            fitting_images=fitting_images,
        )
        shares.append(
            SegmentShare(
                config=segment.config,
                recipe=segment.recipe,
                end_epoch=segment.end_epoch,
                execution=execution,
                batches=_batches(segment.config, data, worker, execution.micro_batch_size),
            )
        )
    return shares


def segment_at(segments: Sequence[SegmentShare], step: int) -> SegmentShare:
    """Return the segment with which a run goes on after `step` steps."""
    return next(segment for segment in reversed(segments) if segment.recipe.first_step <= step)


def _batches(config: ExperimentConfig, data: PreparedData, worker: Worker, micro_batch_size: int) -> TrainBatches:
    return TrainBatches(
        data=data.train,
        transform=with_augmentation(data.transform, config.data),
        global_batch_size=config.recipe.global_batch_size,
        rank=worker.rank,
        world_size=worker.world_size,
        images_per_device=micro_batch_size,
        seed=config.seed,
        augmentation_seed=config.data.augmentation_seed,
        image_tricks=image_tricks(config.tricks, data.channels),
        device=worker.device,
        with_neighbours=blends_images(config),
        sides=training_sides(config),
    )
