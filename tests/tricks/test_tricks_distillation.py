"""Distillation: the value, the gradient and their limits."""

import math

import pytest
import torch
from torch.nn import functional as F

from raytricks.tricks.distillation import distillation_losses, distilled_losses


def pair(num_classes=7, dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (scale * torch.randn(5, num_classes, generator=generator, dtype=dtype) for _ in range(2))
    return student.requires_grad_(), teacher


def gradient(student, loss):
    return torch.autograd.grad(loss, student)[0]


def soft_cross_entropy(student, teacher, temperature):
    """Write the paper's term down as it stands."""
    targets = F.softmax(teacher / temperature, dim=1)
    return -(temperature**2) * (targets * F.log_softmax(student / temperature, dim=1)).sum(1)


def test_distillation_by_hand():
    student = torch.zeros(1, 2, requires_grad=True)
    teacher = torch.tensor([[2 * math.log(3), 0.0]])  # at T = 2: probabilities 3/4 and 1/4
    loss = distillation_losses(student, teacher, 2.0)
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)))
    torch.testing.assert_close(gradient(student, loss.sum()), torch.tensor([[-0.5, 0.5]]))  # T * (q - p)


def test_distillation_is_from_teacher_to_student_and_not_back():
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert distillation_losses(student, teacher, 1.0).item() == pytest.approx(forward)
    assert forward != pytest.approx(backward, rel=0.05)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_distillation_mean_equals_torch_batchmean(temperature):
    student, teacher = pair()
    expected = temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1), reduction="batchmean"
    )
    torch.testing.assert_close(distillation_losses(student, teacher, temperature).mean(), expected)


def test_distillation_has_the_gradient_of_cross_entropy_and_a_far_smaller_value():
    student, teacher = pair(1000)
    divergence = distillation_losses(student, teacher, 20.0).mean()
    cross_entropy = soft_cross_entropy(student, teacher, 20.0).mean()
    torch.testing.assert_close(gradient(student, divergence), gradient(student, cross_entropy))
    # T^2 * log K = 2763.1; both differ from it by a few units alone
    assert cross_entropy.item() == pytest.approx(400 * math.log(1000), rel=0.01)
    assert 0 < divergence.item() < 20


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_distillation_of_agreeing_logits_is_zero_with_zero_gradient(temperature):
    _, teacher = pair(100, torch.float32)
    student = teacher.clone().requires_grad_()
    losses = distillation_losses(student, teacher, temperature)
    assert torch.equal(losses, torch.zeros(5))
    assert gradient(student, losses.sum()).abs().max() < 1e-5
    shifted = distillation_losses(student + 7, teacher, temperature)  # a softmax knows differences alone
    assert shifted.abs().max() < 1e-2 * temperature


def test_distillation_is_never_negative():
    student, teacher = pair(10)
    assert bool((distillation_losses(student, teacher, 3.0) > 0).all())


def test_distillation_gradient_tends_to_the_centred_difference_of_the_logits():
    student = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[4.0, 0.0, 2.0]], dtype=torch.float64)
    # z - r = (-3, 2, 4), its mean 1: ((-4, 1, 3) / K
    expected = torch.tensor([[-4.0, 1.0, 3.0]], dtype=torch.float64) / 3
    at_large = gradient(student, distillation_losses(student, teacher, 1e4).sum())
    torch.testing.assert_close(at_large, expected, rtol=1e-3, atol=1e-3)
    norms = [gradient(student, distillation_losses(student, teacher, t).sum()).norm() for t in (50.0, 500.0, 5000.0)]
    assert [float(n / expected.norm()) for n in norms] == pytest.approx([1, 1, 1], abs=0.05)
    value = distillation_losses(student, teacher, 1e4).item()
    assert value == pytest.approx((16 + 1 + 9) / 6, rel=1e-3)  # half the mean square of the centred difference


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distillation_computes_half_precision_logits_in_fp32(dtype):
    student, teacher = pair(1000, torch.float32)
    half = student.detach().to(dtype), teacher.to(dtype)
    losses = distillation_losses(*half, 20.0)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, distillation_losses(half[0].float(), half[1].float(), 20.0))


def test_distillation_keeps_fp64_and_takes_an_fp32_teacher():
    student, teacher = pair()
    losses = distillation_losses(student, teacher.float(), 2.0)
    assert losses.dtype == torch.float64
    torch.testing.assert_close(losses, distillation_losses(student, teacher, 2.0), rtol=1e-5, atol=1e-5)


def test_distillation_gives_the_teacher_no_gradient():
    student, teacher = pair()
    teacher.requires_grad_()
    distillation_losses(student, teacher, 2.0).sum().backward()
    assert teacher.grad is None and student.grad is not None


def test_distillation_takes_logits_of_inference_mode():
    student, teacher = pair(dtype=torch.float32)
    with torch.inference_mode():
        made_there = teacher * 1.0
    torch.testing.assert_close(
        gradient(student, distillation_losses(student, made_there, 4.0).sum()),
        gradient(student, distillation_losses(student, teacher, 4.0).sum()),
    )


def test_distillation_survives_extreme_logits():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    losses = distillation_losses(student, torch.tensor([[-1e4, 1e4, 0.0]]), 1.0)
    assert losses.item() == pytest.approx(2e4)
    assert bool(gradient(student, losses.sum()).isfinite().all())


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_distillation_rejects_temperatures(temperature):
    with pytest.raises(ValueError, match="temperature must be a positive number, got"):
        distillation_losses(*pair(), temperature)


@pytest.mark.parametrize(("student", "teacher"), [((5, 7), (5, 8)), ((5, 7), (1, 7)), ((7,), (7,)), ((2, 3, 4),) * 2])
def test_distillation_rejects_shapes(student, teacher):
    with pytest.raises(ValueError, match=r"must have the same shape \(N, K\), got"):
        distillation_losses(torch.zeros(student), torch.zeros(teacher), 2.0)


def test_distillation_weights_both_terms():
    hard, soft = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    torch.testing.assert_close(distilled_losses(hard, soft, 0.5, 0.25), torch.tensor([3.0, 6.0]))
    assert torch.equal(distilled_losses(hard, soft, 0.0, 1.0), soft)
    assert torch.equal(distilled_losses(hard, soft, 1.0, 0.0), hard)


@pytest.mark.parametrize("weights", [(-0.1, 1.0), (1.0, -0.1), (0.0, 0.0), (math.nan, 1.0), (1.0, math.inf)])
def test_distillation_rejects_weights(weights):
    with pytest.raises(ValueError, match="must be >= 0 and not both 0, got"):
        distilled_losses(torch.zeros(2), torch.zeros(2), *weights)


def test_distillation_rejects_losses_of_different_shapes():
    with pytest.raises(ValueError, match=r"must have the same shape, got \(2,\) and \(1,\)"):
        distilled_losses(torch.zeros(2), torch.zeros(1), 0.5, 0.5)
