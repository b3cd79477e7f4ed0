"""What slots hand to a part's functions beside tensors and settings. Imports neither torch nor ray."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Tensor = Any
"""torch's, which is not imported here."""


@dataclass(frozen=True, kw_only=True)
class LrPoint:
    """A place on the curve of the learning rate.

    Attributes:
        step: number of the update on the curve, from 1.
        total_steps: of a run that has this batch from its start.
        warmup_steps: updates of the warmup, 0 without one.
        steps_per_epoch: whole global batches.
        global_batch_size: images per update, over all workers and accumulation steps.
    """

    step: int
    total_steps: int
    warmup_steps: int
    steps_per_epoch: int
    global_batch_size: int


@dataclass(frozen=True)
class Blend:
    """How a step blends each image with its left neighbour in the global batch.

    Attributes:
        mix_weight: weight of the image's own label, in [0, 1].
        apply: (N, C, H, W) images and their neighbours -> the blended images.
    """

    mix_weight: float
    apply: Callable[[Tensor, Tensor], Tensor]

    def targets(self, own: Tensor, neighbours: Tensor) -> Tensor:
        """Return what belongs to the images, blended like their labels."""
        return self.mix_weight * own + (1 - self.mix_weight) * neighbours
