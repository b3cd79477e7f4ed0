"""Binary cross-entropy: each class is a question of its own, so a mixed image may be two things at once."""

from torch import Tensor
import torch.nn.functional as F

from raytricks.parts.hooks import Hooks
from raytricks.parts.losses import BinaryCrossEntropyConfig


def binary_cross_entropy(logits: Tensor, targets: Tensor, threshold: float | None = None) -> Tensor:
    """Return the mean over the classes of the binary cross-entropy of each image: (n,).

    Args:
        logits: (n, K), fp32 or fp64.
        targets: (n, K) in [0, 1], smoothed or blended already.
        threshold: targets above it count as 1, the others as 0, so that a mixed image fully is both of its classes;
            None: as they are.

    Source: Wightman et al. 2021, section 4; timm's BinaryCrossEntropy.
    """
    if threshold is not None:
        targets = (targets > threshold).to(targets.dtype)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


def _loss(logits: Tensor, targets: Tensor, settings: BinaryCrossEntropyConfig) -> Tensor:
    return binary_cross_entropy(logits, targets, settings.threshold)


HOOKS = Hooks(loss=_loss)
