"""CutMix against torchvision's v2.CutMix and in numbers."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from raytricks.data.randomness import step_generator
from raytricks.tricks.cutmix import Rectangle, centred_rectangle, draw_rectangle, kept_part, paste


def draw(alpha, seed, step, height, width):
    """The rectangle of a step, as the loop draws it."""
    return draw_rectangle(alpha, step_generator(seed, step, "cutmix"), height, width)


def test_cutmix_pastes_the_hand_computed_pixels():
    inputs, neighbours = torch.zeros(1, 1, 3, 4), torch.arange(12.0).view(1, 1, 3, 4)
    pasted = paste(inputs, neighbours, Rectangle(top=1, left=2, bottom=3, right=4))
    assert pasted[0, 0].tolist() == [[0, 0, 0, 0], [0, 0, 6, 7], [0, 0, 10, 11]]
    assert inputs.sum() == 0  # the input is left alone
    assert kept_part(Rectangle(1, 2, 3, 4), 3, 4) == pytest.approx(1 - 4 / 12)


def test_cutmix_equals_torchvision_for_the_same_rectangle():
    torch.manual_seed(0)
    images, labels = torch.rand(7, 3, 9, 12), torch.randint(0, 5, (7,))
    num_pasted = 0
    for _ in range(20):
        theirs, their_labels = v2.CutMix(alpha=1.0, num_classes=5)(images, labels)
        changed = (theirs != images).any(dim=1).any(dim=0).nonzero()
        if not len(changed):
            continue
        num_pasted += 1
        (top, left), (bottom, right) = changed.min(0).values.tolist(), (changed.max(0).values + 1).tolist()
        rectangle = Rectangle(top, left, bottom, right)
        assert torch.equal(paste(images, images.roll(1, 0), rectangle), theirs)
        kept = kept_part(rectangle, 9, 12)
        one_hot = torch.nn.functional.one_hot(labels, 5).float()
        torch.testing.assert_close(kept * one_hot + (1 - kept) * one_hot.roll(1, 0), their_labels)
    assert num_pasted > 10


def test_cutmix_rectangle_is_cut_off_at_the_border_like_torchvisions():
    assert centred_rectangle(0, 5, 2, 2, 6, 6) == Rectangle(top=0, left=3, bottom=2, right=6)
    assert centred_rectangle(3, 3, 3, 3, 6, 6) == Rectangle(0, 0, 6, 6)
    assert kept_part(Rectangle(0, 0, 6, 6), 6, 6) == 0


def test_cutmix_mean_kept_part_is_that_of_torchvision():
    ours = [kept_part(draw(1.0, 0, step, 32, 32), 32, 32) for step in range(4000)]
    torch.manual_seed(0)
    images, labels = torch.zeros(2, 1, 32, 32), torch.tensor([0, 1])
    cutmix = v2.CutMix(alpha=1.0, num_classes=2)
    theirs = [float(cutmix(images, labels)[1][0, 0]) for _ in range(4000)]
    error = np.hypot(np.std(ours), np.std(theirs)) / np.sqrt(4000)
    assert abs(np.mean(ours) - np.mean(theirs)) < 4 * error


def test_cutmix_draw_depends_on_seed_and_step_alone():
    first = draw(1.0, 3, 17, 20, 30)
    assert first == draw(1.0, 3, 17, 20, 30)
    assert len({draw(1.0, seed, step, 200, 300) for seed in (3, 4) for step in (17, 18)}) == 4


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_cutmix_rectangle_lies_inside_the_image(alpha):
    for step in range(500):
        box = draw(alpha, 1, step, 8, 13)
        assert 0 <= box.top <= box.bottom <= 8
        assert 0 <= box.left <= box.right <= 13
        assert 0 <= kept_part(box, 8, 13) <= 1


def test_cutmix_alpha_zero_is_off():
    box = draw(0.0, 1, 1, 8, 8)
    images = torch.rand(3, 1, 8, 8)
    assert paste(images, images.roll(1, 0), box) is images
    assert kept_part(box, 8, 8) == 1


def test_cutmix_rejects_what_makes_no_sense():
    with pytest.raises(ValueError, match="alpha must be >= 0, got -1"):
        draw(-1.0, 0, 0, 8, 8)
    with pytest.raises(ValueError, match="shape"):
        paste(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4), Rectangle(0, 0, 1, 1))
