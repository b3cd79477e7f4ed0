"""What a step minimises, an image at a time: smoothed, blended and distilled cross-entropy.

Each is linear in its targets, so the order is free and each is applied once:

    hard = blend(smooth(labels), smooth(neighbour labels))
    objective = hard                                        without a teacher
    objective = hard_weight * hard + soft_weight * soft     with one
"""

from dataclasses import dataclass

import torch
from torch import Tensor
import torch.nn.functional as F

from raytricks.config.schema import TricksConfig
from raytricks.recipe.blending import Blend
from raytricks.tricks.distillation import distillation_losses, distilled_losses
from raytricks.tricks.label_smoothing import smoothed_cross_entropy
from raytricks.tricks.mixup import mixed_loss


@dataclass(frozen=True)
class Targets:
    """What the images of a micro-batch should be recognised as.

    Attributes:
        labels: (n,) int64.
        neighbour_labels: (n,) of the images they are blended with; None without a blend.
        teacher_logits: (n, K) for the blended images; None without a teacher.
    """

    labels: Tensor
    neighbour_labels: Tensor | None = None
    blend: Blend | None = None
    teacher_logits: Tensor | None = None

    def blended(self, of_labels) -> Tensor:
        """Return of_labels(labels), blended with the neighbours' like the images."""
        if self.blend is None:
            return of_labels(self.labels)
        assert self.neighbour_labels is not None
        return mixed_loss(of_labels, self.labels, self.neighbour_labels, self.blend.mix_weight)


def objective_losses(logits: Tensor, targets: Targets, tricks: TricksConfig) -> Tensor:
    """Return the objective of each image: (n,), of (n, K) logits in fp32 or fp64."""
    smoothing, distillation = tricks.label_smoothing, tricks.distillation
    hard = targets.blended(lambda labels: smoothed_cross_entropy(logits, labels, smoothing.epsilon, smoothing.form))
    if targets.teacher_logits is None:
        return hard
    soft = distillation_losses(logits, targets.teacher_logits, distillation.temperature)
    return distilled_losses(hard, soft, distillation.hard_weight, distillation.soft_weight)


def plain_sums(logits: Tensor, targets: Targets) -> Tensor:
    """Return (2,): sums of plain cross-entropy and correct answers, blended like the labels."""
    predicted = logits.argmax(dim=1)
    cross_entropy = targets.blended(lambda labels: F.cross_entropy(logits, labels, reduction="none"))
    correct = targets.blended(lambda labels: (predicted == labels).to(logits.dtype))
    return torch.stack([cross_entropy.sum(), correct.sum()])
