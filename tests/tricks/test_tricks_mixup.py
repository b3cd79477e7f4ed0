"""Mixup: its draws, its images and its loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from raytricks.data.randomness import step_generator
from raytricks.parts.hooks import Blend
from raytricks.training.loss import Targets, soft_cross_entropy
from raytricks.tricks.label_smoothing import smooth_targets
from raytricks.tricks.mixup import draw_mix_weight, mix


def draw(alpha, seed, step):
    """The draw of a step, as the loop makes it."""
    return draw_mix_weight(alpha, step_generator(seed, step, "mixup"))


def blended(labels, neighbours, mix_weight):
    return Targets(labels, neighbours, Blend(mix_weight, lambda inputs, others: mix(inputs, others, mix_weight)))


def test_mixup_draw_depends_on_seed_and_step_alone():
    assert draw(0.2, 0, 7) == draw(0.2, 0, 7)
    draws = {draw(0.2, seed, step) for seed in range(3) for step in range(20)}
    assert len(draws) == 60


def test_mixup_draws_follow_the_beta_distribution():
    draws = np.array([draw(0.2, 0, step) for step in range(4000)])
    assert ((draws >= 0) & (draws <= 1)).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)
    almost_unmixed = (np.minimum(draws, 1 - draws) < 0.05).mean()
    assert almost_unmixed == pytest.approx(0.58, abs=0.03)


def test_mixup_is_off_at_alpha_zero():
    images = torch.rand(3, 2)
    assert draw(0, 0, 1) == 1.0
    assert mix(images, images.roll(1, 0), 1.0) is images


def test_mixup_by_hand():
    images = torch.tensor([[0.0], [4.0], [8.0]])
    torch.testing.assert_close(mix(images, images.roll(1, 0), 0.75), torch.tensor([[2.0], [3.0], [7.0]]))


@pytest.mark.parametrize("num_images", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_equals_torchvision_given_its_weight(monkeypatch, num_images, alpha):
    images, labels = torch.rand(num_images, 3, 4, 4), torch.arange(num_images) % 4
    mix_weight = draw(alpha, 0, 1)
    theirs = v2.MixUp(alpha=alpha, num_classes=4)
    drawn = torch.tensor(mix_weight, dtype=torch.float64)
    monkeypatch.setattr(theirs, "_dist", SimpleNamespace(sample=lambda _: drawn))
    their_images, their_targets = theirs(images, labels)
    torch.testing.assert_close(mix(images, images.roll(1, 0), mix_weight), their_images)

    logits = torch.randn(num_images, 4)
    targets = blended(labels, labels.roll(1, 0), mix_weight)
    probabilities = targets.probabilities(4, logits.dtype, lambda one_hot: one_hot)
    torch.testing.assert_close(probabilities, their_targets)
    mixed_losses = targets.blended(lambda y: F.cross_entropy(logits, y, reduction="none"))
    torch.testing.assert_close(mixed_losses, soft_cross_entropy(logits, their_targets))
    torch.testing.assert_close(mixed_losses, soft_cross_entropy(logits, probabilities))


def test_mixup_of_a_slice_needs_only_its_left_neighbour():
    images = torch.rand(6, 3)
    whole = mix(images, images.roll(1, 0), 0.3)
    slices = []
    for start in (0, 2, 4):
        with_neighbour = torch.cat([images[start - 1][None], images[start : start + 2]])
        slices.append(mix(with_neighbour[1:], with_neighbour[:-1], 0.3))
    assert torch.equal(torch.cat(slices), whole)


def test_mixup_of_one_image_is_that_image():
    image = torch.rand(1, 3)
    torch.testing.assert_close(mix(image, image.roll(1, 0), 0.3), image)


@pytest.mark.parametrize("form", ["paper", "torch"])
def test_mixup_and_smoothing_commute_and_smooth_once(form):
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 3])
    neighbours = labels.roll(1, 0)
    calls = []

    def soften(one_hot):
        calls.append(one_hot)
        return smooth_targets(one_hot, 0.1, form)

    probabilities = blended(labels, neighbours, 0.3).probabilities(4, logits.dtype, soften)
    assert len(calls) == 2  # once for the labels, once for the neighbours'

    smoothed = [smooth_targets(F.one_hot(y, 4).float(), 0.1, form) for y in (labels, neighbours)]
    torch.testing.assert_close(probabilities, mix(*smoothed, 0.3))
    of_each = [soft_cross_entropy(logits, targets) for targets in smoothed]
    torch.testing.assert_close(soft_cross_entropy(logits, probabilities), mix(*of_each, 0.3))
    mixed = mix(F.one_hot(labels, 4).float(), F.one_hot(neighbours, 4).float(), 0.3)
    torch.testing.assert_close(probabilities, smooth_targets(mixed, 0.1, form))


@pytest.mark.parametrize("blend", [None, Blend(1.0, lambda inputs, neighbours: inputs)])
def test_mixup_of_targets_when_off_is_one_call(blend):
    calls = []

    def of_labels(labels):
        calls.append(labels)
        return labels.float()

    labels = torch.tensor([1, 2])
    assert torch.equal(Targets(labels, labels.roll(1), blend).blended(of_labels), labels.float())
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw(-1, 0, 0), "alpha must be >= 0, got -1; 0 turns mixup off"),
        (
            lambda: mix(torch.rand(2, 1), torch.rand(3, 1), 0.5),
            r"must have the shape \(2, 1\), got",
        ),
        (
            lambda: mix(torch.ones(2).int(), torch.ones(2).int(), 0.5),
            "inputs must be floats, got torch.int32",
        ),
        (lambda: mix(torch.rand(2), torch.rand(2), 1.5), r"mix_weight must be in \[0, 1\], got 1.5"),
        (lambda: mix(torch.rand(2), torch.rand(2), -1), r"mix_weight must be in \[0, 1\], got -1"),
    ],
)
def test_mixup_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()
