"""Balanced accuracy: the mean recall of the classes, so that a rare class counts as much as a frequent one."""

import torch
from torch import Tensor

from raytricks.parts.hooks import Hooks


def _counts(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return (2, K): right answers and images of each class."""
    is_right = logits.argmax(dim=1) == labels
    right = torch.bincount(labels[is_right], minlength=num_classes)
    return torch.stack([right, torch.bincount(labels, minlength=num_classes)])


def _value(counts: Tensor) -> float:
    """Return the mean recall of the classes that have images; NaN without any."""
    right, images = counts
    present = images > 0
    return float((right[present] / images[present]).mean())


HOOKS = Hooks(counts=_counts, value=_value)
