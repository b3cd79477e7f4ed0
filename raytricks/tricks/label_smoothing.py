"""Label smoothing: targets that leave a little probability to the wrong classes."""

from typing import Literal

import torch
from torch.nn import functional as F

Form = Literal["paper", "torch"]


def soft_cross_entropy(logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each sample to a distribution over the classes.

    Args:
        logits: (N, K), any float type.
        probabilities: (N, K), rows that sum to 1.

    Returns:
        (N,) fp32 (fp64 for fp64 logits): softmax in half precision loses the small terms.

    Source: He et al. 2018, section 5.2.
    """
    log_probabilities = F.log_softmax(_at_least_fp32(logits), dim=-1)
    return -(probabilities * log_probabilities).sum(-1)


def smoothed_one_hot(labels: torch.Tensor, num_classes: int, epsilon: float, form: Form = "paper") -> torch.Tensor:
    """Return the smoothed target distribution of each label.

    Args:
        labels: (N,) int64 in [0, K).
        num_classes: K; at least 2 for form paper.
        epsilon: probability taken from the true class, in [0, 1).
        form: paper: 1-eps and eps/(K-1); torch: 1-eps+eps/K and eps/K (torch, timm, the authors'
            code). paper at eps equals torch at eps*K/(K-1).

    Returns:
        (N, K) fp32.

    Raises:
        ValueError: epsilon, K or form is out of range.

    Source: He et al. 2018, section 5.2; Szegedy et al. 2016, section 7 for torch.
    """
    true_class, other_class = _target_values(num_classes, epsilon, form)
    targets = torch.full((len(labels), num_classes), other_class, device=labels.device)
    return targets.scatter_(1, labels[:, None], true_class)


def smoothed_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, epsilon: float, form: Form = "paper"
) -> torch.Tensor:
    """Return the cross-entropy of each sample to its smoothed label, without building the targets.

    With q the value of the wrong classes and p of the true one: (p - q) * -log s_y + q * sum -log s.

    Args:
        logits: (N, K), any float type; the softmax is taken in fp32.
        labels: (N,) int64 in [0, K).
        epsilon: in [0, 1); 0 is plain cross-entropy, bit for bit.
        form: see `smoothed_one_hot`.

    Returns:
        (N,) fp32 (fp64 for fp64 logits).

    Raises:
        ValueError: epsilon, K or form is out of range.

    Source: He et al. 2018, section 5.2.
    """
    true_class, other_class = _target_values(logits.shape[-1], epsilon, form)
    logits = _at_least_fp32(logits)
    if epsilon == 0:
        return F.cross_entropy(logits, labels, reduction="none")
    log_probabilities = F.log_softmax(logits, dim=-1)
    of_label = log_probabilities.gather(1, labels[:, None]).squeeze(1)
    return -(true_class - other_class) * of_label - other_class * log_probabilities.sum(-1)


def _target_values(num_classes: int, epsilon: float, form: Form) -> tuple[float, float]:
    """Return the probabilities of the true and of each other class."""
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon must be in [0, 1), got {epsilon}")
    if form == "torch":
        return 1 - epsilon + epsilon / num_classes, epsilon / num_classes
    if form != "paper":
        raise ValueError(f"form must be paper or torch, got {form!r}")
    if num_classes < 2:
        raise ValueError(f"form paper needs 2 or more classes, got {num_classes}")
    return 1 - epsilon, epsilon / (num_classes - 1)


def _at_least_fp32(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
