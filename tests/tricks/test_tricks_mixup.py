"""Mixup: its draws, its images and its loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from raytricks.tricks.label_smoothing import smoothed_cross_entropy, smoothed_one_hot, soft_cross_entropy
from raytricks.tricks.mixup import draw_mix_weight, mix, mixed_loss


def test_mixup_draw_depends_on_seed_and_step_alone():
    assert draw_mix_weight(0.2, 0, 7) == draw_mix_weight(0.2, 0, 7)
    draws = {draw_mix_weight(0.2, seed, step) for seed in range(3) for step in range(20)}
    assert len(draws) == 60


def test_mixup_draws_follow_the_beta_distribution():
    draws = np.array([draw_mix_weight(0.2, 0, step) for step in range(4000)])
    assert ((draws >= 0) & (draws <= 1)).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)
    almost_unmixed = (np.minimum(draws, 1 - draws) < 0.05).mean()
    assert almost_unmixed == pytest.approx(0.58, abs=0.03)


def test_mixup_is_off_at_alpha_zero():
    images = torch.rand(3, 2)
    assert draw_mix_weight(0, 0, 1) == 1.0
    assert mix(images, images.roll(1, 0), 1.0) is images


def test_mixup_by_hand():
    images = torch.tensor([[0.0], [4.0], [8.0]])
    torch.testing.assert_close(mix(images, images.roll(1, 0), 0.75), torch.tensor([[2.0], [3.0], [7.0]]))


@pytest.mark.parametrize("num_images", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_equals_torchvision_given_its_weight(monkeypatch, num_images, alpha):
    images, labels = torch.rand(num_images, 3, 4, 4), torch.arange(num_images) % 4
    mix_weight = draw_mix_weight(alpha, 0, 1)
    theirs = v2.MixUp(alpha=alpha, num_classes=4)
    drawn = torch.tensor(mix_weight, dtype=torch.float64)
    monkeypatch.setattr(theirs, "_dist", SimpleNamespace(sample=lambda _: drawn))
    their_images, their_targets = theirs(images, labels)
    torch.testing.assert_close(mix(images, images.roll(1, 0), mix_weight), their_images)

    logits = torch.randn(num_images, 4)
    ours = mixed_loss(lambda y: F.cross_entropy(logits, y, reduction="none"), labels, labels.roll(1, 0), mix_weight)
    torch.testing.assert_close(ours, soft_cross_entropy(logits, their_targets))


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
    ours = mixed_loss(lambda y: smoothed_cross_entropy(logits, y, 0.1, form), labels, neighbours, 0.3)

    smoothed = [smoothed_one_hot(y, 4, 0.1, form) for y in (labels, neighbours)]
    smooth_then_mix = mix(*smoothed, 0.3)
    torch.testing.assert_close(ours, soft_cross_entropy(logits, smooth_then_mix))

    true_class, other_class = smoothed[0].max(), smoothed[0].min()
    mixed = mix(F.one_hot(labels, 4).float(), F.one_hot(neighbours, 4).float(), 0.3)
    mix_then_smooth = mixed * (true_class - other_class) + other_class
    torch.testing.assert_close(smooth_then_mix, mix_then_smooth)


def test_mixup_loss_when_off_is_one_call():
    calls = []

    def loss_per_sample(labels):
        calls.append(labels)
        return labels.float()

    labels = torch.tensor([1, 2])
    assert torch.equal(mixed_loss(loss_per_sample, labels, labels.roll(1), 1.0), labels.float())
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_mix_weight(-1, 0, 0), "alpha must be >= 0, got -1; 0 turns mixup off"),
        (
            lambda: mix(torch.rand(2, 1), torch.rand(3, 1), 0.5),
            r"must have the shape \(2, 1\), got",
        ),
        (
            lambda: mix(torch.ones(2).int(), torch.ones(2).int(), 0.5),
            "inputs must be floats, got torch.int32",
        ),
        (lambda: mix(torch.rand(2), torch.rand(2), 1.5), r"mix_weight must be in \[0, 1\], got 1.5"),
        (lambda: mixed_loss(torch.sum, torch.ones(1), torch.ones(1), -1), "mix_weight must be in"),
    ],
)
def test_mixup_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()
