"""Label smoothing: targets that leave a little probability to the wrong classes."""

from typing import Literal

import torch

from raytricks.parts.hooks import Hooks
from raytricks.parts.tricks import LabelSmoothingConfig

Form = Literal["paper", "torch"]


def smooth_targets(targets: torch.Tensor, epsilon: float, form: Form = "paper") -> torch.Tensor:
    """Return target distributions that leave a little probability to the other classes.

    Args:
        targets: (N, K) rows that sum to 1, such as one-hot labels.
        epsilon: probability taken from the true class, in [0, 1); 0 returns `targets` itself.
        form: paper: 1-eps and eps/(K-1); torch: 1-eps+eps/K and eps/K (torch, timm, the authors'
            code). paper at eps equals torch at eps*K/(K-1).

    Returns:
        (N, K) rows that sum to 1, of the targets' type.

    Raises:
        ValueError: epsilon, K or form is out of range.

    Source: He et al. 2018, section 5.2; Szegedy et al. 2016, section 7 for torch.
    """
    num_classes = targets.shape[-1]
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon must be in [0, 1), got {epsilon}")
    if form not in ("paper", "torch"):
        raise ValueError(f"form must be paper or torch, got {form!r}")
    if form == "paper" and num_classes < 2:
        raise ValueError(f"form paper needs 2 or more classes, got {num_classes}")
    if epsilon == 0:
        return targets
    other_class = epsilon / num_classes if form == "torch" else epsilon / (num_classes - 1)
    true_class = 1 - epsilon + (other_class if form == "torch" else 0)
    return targets * (true_class - other_class) + other_class


def _targets(targets: torch.Tensor, settings: LabelSmoothingConfig) -> torch.Tensor:
    return smooth_targets(targets, settings.epsilon, settings.form)


HOOKS = Hooks(targets=_targets)
