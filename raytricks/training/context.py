"""What a part may look at when it makes the state that it carries through a run."""

from dataclasses import dataclass

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import TrainBatches
from raytricks.data.prepared import PreparedData
from raytricks.recipe.parallel_plan import ParallelPlan
from raytricks.training.worker import Worker


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """One worker's view of a run; see the slot `state`.

    Attributes:
        config: resolved.
        batches: of the first phase.
        parallel: of the first phase.
    """

    config: ExperimentConfig
    data: PreparedData
    batches: TrainBatches
    worker: Worker
    parallel: ParallelPlan
