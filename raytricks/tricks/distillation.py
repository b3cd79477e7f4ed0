"""Knowledge distillation: learn the softened answers of a teacher beside the labels."""

import math

import torch
from torch.nn import functional as F


def distillation_losses(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)) of each sample.

    The gradient by the student's logits, T * (softmax(student / T) - softmax(teacher / T)), is that of
    the paper's cross-entropy; the value lacks the teacher's entropy (T^2 * log K at most, 2763 for T = 20
    and 1000 classes), so it is 0 when the student agrees. T^2 keeps the size of the gradient as T grows:
    it tends to the centred difference of the logits over K.

    Args:
        student_logits: (N, K), any float type.
        teacher_logits: (N, K); no gradient flows into it.
        temperature: T > 0, divides both logits (paper: 20).

    Returns:
        (N,) fp32 (fp64 for fp64 logits of the student): half precision loses the small probabilities.

    Raises:
        ValueError: the shapes differ or are not (N, K), or T is not a positive number.

    Source: He et al. 2018, section 5.3; Hinton et al. 2015, section 2.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a positive number, got {temperature}")
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        raise ValueError(
            "student_logits and teacher_logits must have the same shape (N, K), "
            f"got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    dtype = torch.float64 if student_logits.dtype == torch.float64 else torch.float32
    student = F.log_softmax(student_logits.to(dtype) / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.detach().to(dtype) / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def distilled_losses(
    hard_losses: torch.Tensor, soft_losses: torch.Tensor, hard_weight: float, soft_weight: float
) -> torch.Tensor:
    """Return hard_weight * hard_losses + soft_weight * soft_losses.

    Args:
        hard_losses: (N,) of the labels, smoothed or mixed already.
        soft_losses: (N,) from `distillation_losses`.
        hard_weight, soft_weight: >= 0, not both 0. 1 and 1 in the paper's formula, 0.5 and 0.5 in its
            authors' code.

    Raises:
        ValueError: the shapes differ, or a weight is out of range.

    Source: He et al. 2018, section 5.3.
    """
    if hard_losses.shape != soft_losses.shape:
        raise ValueError(
            f"hard_losses and soft_losses must have the same shape, got {tuple(hard_losses.shape)} "
            f"and {tuple(soft_losses.shape)}"
        )
    weights = (hard_weight, soft_weight)
    if not all(0 <= weight < math.inf for weight in weights) or weights == (0, 0):
        raise ValueError(
            f"hard_weight and soft_weight must be >= 0 and not both 0, got {hard_weight} and {soft_weight}"
        )
    return hard_weight * hard_losses + soft_weight * soft_losses
