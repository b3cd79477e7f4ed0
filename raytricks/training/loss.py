"""What a step minimises, an image at a time: the loss that the config names, to blended and softened targets.

probabilities = blend(soften(one-hot labels), soften(one-hot neighbour labels))
losses        = loss(logits, probabilities), then what parts such as distillation make of them
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
import torch.nn.functional as F

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import TrainBatches
from raytricks.data.prepared import PreparedData
from raytricks.parts.hooks import Blend, Hooks
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


@dataclass(frozen=True)
class Targets:
    """What the images of a micro-batch should be recognised as.

    Attributes:
        labels: (n,) int64.
        neighbour_labels: (n,) of the images they are blended with; None without a blend.
    """

    labels: Tensor
    neighbour_labels: Tensor | None = None
    blend: Blend | None = None

    def blended(self, of_labels: Callable[[Tensor], Tensor]) -> Tensor:
        """Return of_labels(labels), blended with the neighbours' like the images."""
        own = of_labels(self.labels)
        if self.blend is None or self.neighbour_labels is None or self.blend.mix_weight == 1:
            return own
        return self.blend.targets(own, of_labels(self.neighbour_labels))

    def probabilities(self, num_classes: int, dtype: torch.dtype, soften: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the (n, K) target distributions; `soften` takes the (n, K) one-hot labels."""
        return self.blended(lambda labels: soften(F.one_hot(labels, num_classes).to(dtype)))


def plain_sums(logits: Tensor, targets: Targets) -> Tensor:
    """Return (2,): sums of plain cross-entropy and correct answers, blended like the labels."""
    predicted = logits.argmax(dim=1)
    cross_entropy = targets.blended(lambda labels: F.cross_entropy(logits, labels, reduction="none"))
    correct = targets.blended(lambda labels: (predicted == labels).to(logits.dtype))
    return torch.stack([cross_entropy.sum(), correct.sum()])


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each image to a distribution over the classes: (n,).

    Args:
        logits: (n, K), fp32 or fp64: softmax in half precision loses the small terms.
        targets: (n, K), rows that sum to 1.

    Source: He et al. 2018, section 5.2.
    """
    return F.cross_entropy(logits, targets, reduction="none")


CROSS_ENTROPY = Hooks(loss=soft_cross_entropy)
