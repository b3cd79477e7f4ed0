"""Cropping and resizing a batch, against torchvision's resized_crop one image at a time."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn.datasets import load_sample_images
import torch
from torchvision.transforms.v2 import functional as F

from raytricks.data.resample import crop_and_resize, resample_weights

PHOTOS = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)[:, :, 100:292, 200:456]
BOXES = [
    (0, 0, 192, 256),  # everything
    (10, 20, 100, 75),  # shrinks
    (91, 135, 56, 56),  # the size wanted
    (3, 250, 7, 5),  # grows
    (191, 255, 1, 1),  # one pixel
    (0, 17, 192, 3),  # shrinks one way, grows the other
    (64, 0, 1, 256),
]


def reference(image: torch.Tensor, box: tuple[int, int, int, int], size: int) -> torch.Tensor:
    return F.resized_crop(image.float(), *box, size=[size, size], antialias=True)


@pytest.mark.parametrize("size", [1, 17, 56, 224])
@pytest.mark.parametrize("box", BOXES)
def test_resample_equals_torchvision_resized_crop(box, size):
    ours = crop_and_resize(PHOTOS, torch.tensor([box, box]), size)
    theirs = torch.stack([reference(image, box, size) for image in PHOTOS])
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_resample_equals_torchvision_for_any_box(data):
    height, width = data.draw(st.integers(1, 192)), data.draw(st.integers(1, 256))
    box = (data.draw(st.integers(0, 192 - height)), data.draw(st.integers(0, 256 - width)), height, width)
    size = data.draw(st.integers(1, 96))
    ours = crop_and_resize(PHOTOS[:1], torch.tensor([box]), size)
    torch.testing.assert_close(ours[0], reference(PHOTOS[0], box, size), atol=2e-3, rtol=0)


def test_resample_gives_each_image_its_own_box_and_flip():
    boxes, flip = torch.tensor([BOXES[1], BOXES[3]]), torch.tensor([False, True])
    ours = crop_and_resize(PHOTOS, boxes, 32, flip)
    theirs = [reference(PHOTOS[0], BOXES[1], 32), F.hflip(reference(PHOTOS[1], BOXES[3], 32))]
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-3, rtol=0)


def test_resample_flip_is_exactly_hflip():
    boxes = torch.tensor([BOXES[1], BOXES[2]])
    flipped = crop_and_resize(PHOTOS, boxes, 56, torch.tensor([True, True]))
    torch.testing.assert_close(flipped, F.hflip(crop_and_resize(PHOTOS, boxes, 56)), atol=2e-4, rtol=0)


def test_resample_leaves_a_box_of_the_wanted_size_alone():
    ours = crop_and_resize(PHOTOS, torch.tensor([BOXES[2]] * 2), 56)
    assert torch.equal(ours, PHOTOS[:, :, 91:147, 135:191].float())


@pytest.mark.parametrize("size", [5, 40, 150])
def test_resample_never_sees_what_is_outside_the_box(size):
    box = torch.tensor([(20, 30, 60, 50)] * 2)
    outside = torch.full_like(PHOTOS, 255)
    outside[:, :, 20:80, 30:80] = PHOTOS[:, :, 20:80, 30:80]
    assert torch.equal(crop_and_resize(PHOTOS, box, size), crop_and_resize(outside, box, size))


@pytest.mark.parametrize(("start", "size", "out"), [(0, 9, 9), (3, 4, 11), (2, 7, 3), (8, 1, 5), (0, 9, 1)])
def test_resample_weights_are_averages_inside_the_interval(start, size, out):
    weights = resample_weights(torch.tensor([start]), torch.tensor([size]), 9, out)[0]
    assert weights.shape == (out, 9)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(out))
    assert not weights[:, :start].any()
    assert not weights[:, start + size :].any()
    inside = weights[:, start : start + size]
    torch.testing.assert_close(inside, inside.flip(0, 1))


def test_resample_halves_by_hand():
    weights = resample_weights(torch.tensor([0]), torch.tensor([4]), 4, 2)[0]
    expected = torch.tensor([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    torch.testing.assert_close(weights, expected)
