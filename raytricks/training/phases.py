"""A worker's share of each phase of a run: all that depends on its settings and holds no state."""

from collections.abc import Sequence
from dataclasses import dataclass

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import TrainBatches
from raytricks.data.prepared import PreparedData, with_augmentation
from raytricks.recipe.chain import Chain, image_chain
from raytricks.recipe.parallel_plan import ParallelPlan, plan_parallel
from raytricks.recipe.phases import make_phases
from raytricks.recipe.recipe import Recipe
from raytricks.recipe.resolve import training_sides
from raytricks.training.worker import Worker


@dataclass(frozen=True, kw_only=True)
class PhaseShare:
    """What a worker needs between two changes; see `raytricks.recipe.phases.Phase`."""

    config: ExperimentConfig
    recipe: Recipe
    end_epoch: int
    parallel: ParallelPlan
    batches: TrainBatches


def share_phases(
    config: ExperimentConfig, data: PreparedData, worker: Worker, fitting_images: int | None = None
) -> list[PhaseShare]:
    """Return this worker's share of every phase of a run, so that what is wrong shows before the first step.

    Args:
        fitting_images: as of `plan_parallel`.

    Raises:
        ConfigError: a change, or the share that it leaves to a worker, is not possible.
        DataError: fewer training images than one global batch.
    """
    shares = []
    for phase in make_phases(config, len(data.train)):
        parallel = plan_parallel(
            phase.config,
            num_workers=worker.world_size,
            device_type=worker.device_type,
            fitting_images=fitting_images,
        )
        shares.append(
            PhaseShare(
                config=phase.config,
                recipe=phase.recipe,
                end_epoch=phase.end_epoch,
                parallel=parallel,
                batches=_batches(phase.config, data, worker, parallel.micro_batch_size),
            )
        )
    return shares


def phase_at(phases: Sequence[PhaseShare], step: int) -> PhaseShare:
    """Return the phase with which a run goes on after `step` steps."""
    return next(phase for phase in reversed(phases) if phase.recipe.first_step <= step)


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
        image_tricks=image_chain(config),
        device=worker.device,
        with_neighbours=bool(Chain(config).calls("blend")),
        sides=training_sides(config),
    )
