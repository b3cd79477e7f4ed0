"""Label smoothing in both forms."""

import math

import pytest
import torch
from torch.nn import functional as F

from raytricks.training.loss import soft_cross_entropy
from raytricks.tricks.label_smoothing import smooth_targets

FORMS = ("paper", "torch")


def batch(num_classes=7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, num_classes, generator=generator, dtype=dtype)
    return logits, torch.randint(num_classes, (5,), generator=generator)


def smoothed_one_hot(labels, num_classes, epsilon, form="paper", dtype=torch.float32):
    return smooth_targets(F.one_hot(labels, num_classes).to(dtype), epsilon, form)


def smoothed_cross_entropy(logits, labels, epsilon, form="paper"):
    """The loss of a step, whose targets have the type of the logits."""
    return soft_cross_entropy(logits, smoothed_one_hot(labels, logits.shape[1], epsilon, form, logits.dtype))


@pytest.mark.parametrize(("form", "true_class", "other_class"), [("paper", 0.7, 0.1), ("torch", 0.775, 0.075)])
def test_smoothing_targets_by_hand(form, true_class, other_class):
    targets = smoothed_one_hot(torch.tensor([2, 0]), 4, 0.3, form)
    expected = torch.full((2, 4), other_class)
    expected[0, 2] = expected[1, 0] = true_class
    torch.testing.assert_close(targets, expected)
    torch.testing.assert_close(targets.sum(1), torch.ones(2))
    assert targets.dtype == torch.float32


def test_smoothing_loss_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    loss = smoothed_cross_entropy(logits, torch.tensor([0]), 0.2, "paper")
    assert loss.item() == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(4))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.9])
def test_smoothing_of_one_hot_targets_equals_the_closed_form(form, epsilon):
    """With q the value of the wrong classes and p of the true one: (p - q) * -log s_y + q * sum -log s."""
    logits, labels = batch()
    q = epsilon / (6 if form == "paper" else 7)
    p = 1 - epsilon + (0 if form == "paper" else q)
    surprises = -F.log_softmax(logits, dim=1)
    closed_form = (p - q) * surprises[torch.arange(5), labels] + q * surprises.sum(1)
    torch.testing.assert_close(smoothed_cross_entropy(logits, labels, epsilon, form), closed_form)


@pytest.mark.parametrize("form", FORMS)
def test_smoothing_of_zero_is_plain_cross_entropy_bit_for_bit(form):
    logits, labels = batch()
    plain = F.cross_entropy(logits, labels, reduction="none")
    assert torch.equal(smoothed_cross_entropy(logits, labels, 0.0, form), plain)


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_smoothing_forms_convert_into_each_other(num_classes):
    logits, labels = batch(num_classes, torch.float64)
    paper = smoothed_cross_entropy(logits, labels, 0.1, "paper")
    of_torch = smoothed_cross_entropy(logits, labels, 0.1 * num_classes / (num_classes - 1), "torch")
    torch.testing.assert_close(paper, of_torch)


def test_smoothing_torch_form_equals_torch_and_timm():
    logits, labels = batch()
    ours = smoothed_cross_entropy(logits, labels, 0.1, "torch")
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none"))
    timm_loss = pytest.importorskip("timm.loss").LabelSmoothingCrossEntropy(0.1)
    torch.testing.assert_close(ours.mean(), timm_loss(logits, labels))


@pytest.mark.parametrize("num_classes", [10, 1000])
@pytest.mark.parametrize("form", FORMS)
def test_smoothing_optimum_has_the_logit_gap_of_the_formula(form, num_classes):
    epsilon = 0.1
    formula = {
        "paper": math.log((num_classes - 1) * (1 - epsilon) / epsilon),
        "torch": math.log(num_classes * (1 - epsilon) / epsilon + 1),
    }[form]
    gap = torch.zeros((), dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0])
    optimizer = torch.optim.LBFGS(
        [gap], max_iter=100, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        logits = F.pad(gap[None, None], (0, num_classes - 1))  # by symmetry the others stay equal
        value = smoothed_cross_entropy(logits, label, epsilon, form).sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert gap.item() == pytest.approx(formula, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smoothing_keeps_the_type_of_the_targets(dtype):
    assert smoothed_one_hot(torch.tensor([1]), 3, 0.1, dtype=dtype).dtype == dtype


@pytest.mark.parametrize("form", FORMS)
def test_smoothing_of_zero_returns_the_targets_themselves(form):
    targets = torch.eye(3)
    assert smooth_targets(targets, 0.0, form) is targets
    smooth_targets(targets, 0.3, form)
    assert torch.equal(targets, torch.eye(3))  # left alone


@pytest.mark.parametrize("form", FORMS)
def test_smoothing_of_soft_targets_is_that_of_their_one_hot_parts(form):
    soft = torch.tensor([[0.7, 0.3, 0.0, 0.0]])
    parts = smooth_targets(torch.eye(4), 0.2, form)
    torch.testing.assert_close(smooth_targets(soft, 0.2, form), soft @ parts)


def test_smoothing_gradient_is_softmax_minus_target():
    logits, labels = batch(dtype=torch.float64)
    logits.requires_grad_()
    smoothed_cross_entropy(logits, labels, 0.2).sum().backward()
    expected = logits.detach().softmax(1) - smoothed_one_hot(labels, 7, 0.2)
    torch.testing.assert_close(logits.grad, expected, check_dtype=False, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, math.nan])
def test_smoothing_rejects_epsilon(epsilon):
    _, labels = batch()
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\), got"):
        smoothed_one_hot(labels, 7, epsilon)


def test_smoothing_rejects_one_class_and_unknown_forms():
    with pytest.raises(ValueError, match="form paper needs 2 or more classes, got 1"):
        smoothed_one_hot(torch.tensor([0]), 1, 0.1)
    assert smoothed_one_hot(torch.tensor([0]), 1, 0.1, "torch").item() == pytest.approx(1)
    with pytest.raises(ValueError, match="form must be paper or torch, got 'keras'"):
        smoothed_one_hot(torch.tensor([0]), 3, 0.1, "keras")
