"""Training and evaluation transforms, against torchvision and by their distributions."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_images
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from raytricks.data.augmentation import (
    Transform,
    central_squares,
    flip_images,
    random_crop_boxes,
    shift_images,
)
from raytricks.data.batches import evaluation_reader, training_reader
from raytricks.data.randomness import sample_uniforms
from raytricks.data.store import PaddedBatch, RaggedStore, UniformStore

CPU = torch.device("cpu")
PAPER_SCALE, PAPER_ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


def photos(count: int, height: int, width: int) -> torch.Tensor:
    """Cut (count, 3, height, width) pieces out of two real photographs."""
    whole = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    top = torch.arange(count) * (427 - height) // count
    left = torch.arange(count) * (640 - width) // count
    return torch.stack(
        [whole[i % 2][:, t : t + height, x : x + width] for i, (t, x) in enumerate(zip(top, left, strict=True))]
    )


def canvas(pixels: torch.Tensor) -> PaddedBatch:
    count, _, height, width = pixels.shape
    return PaddedBatch(pixels, np.full(count, height), np.full(count, width))


def cropped(transform: Transform, images: torch.Tensor, samples: np.ndarray, seed: int, epoch: int) -> torch.Tensor:
    """Return the augmented images of a store that holds `images` as samples 0 to N - 1."""
    read = training_reader(UniformStore(images.numpy()), transform, seed, epoch)
    return transform.train(read(samples), samples, seed, epoch, CPU)


def evaluated(transform: Transform, store) -> torch.Tensor:
    return transform.evaluate(evaluation_reader(store, transform)(np.arange(len(store))), CPU)


def plain(kind: str, size: int, **changes) -> Transform:
    """Return a transform whose normalisation only scales to 0..1."""
    return Transform(kind=kind, image_size=size, mean=(0.0,) * 3, std=(1.0,) * 3, **changes)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reach", [1, 3, 20])
def test_shift_is_padding_and_a_crop(reach, channels):
    images = photos(9, 12, 15)[:, :channels]
    offsets = torch.randint(-reach, reach + 1, (9, 2), generator=torch.Generator().manual_seed(reach))
    offsets[0], offsets[1], offsets[2] = reach, -reach, 0
    for image, (down, right), ours in zip(images, offsets.tolist(), shift_images(images, offsets, reach), strict=True):
        theirs = F.crop(F.pad(image, [reach] * 4), reach - down, reach - right, 12, 15)
        assert torch.equal(ours, theirs)


def test_shift_moves_down_and_right_by_hand():
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)[None, None]
    assert shift_images(image, torch.tensor([[1, 0]]), 1).flatten().tolist() == [0, 0, 1, 2]
    assert shift_images(image, torch.tensor([[0, 1]]), 1).flatten().tolist() == [0, 1, 0, 3]


@pytest.mark.parametrize("side", [7, 150])  # by the batch and, in place, by the image
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flip_mirrors_the_chosen_images_only(side, layout):
    images, flip = photos(4, 2 * side, side).contiguous(memory_format=layout), np.array([True, False, False, True])
    expected = [F.hflip(i) if f else i.clone() for i, f in zip(images, flip, strict=True)]
    ours = flip_images(images, flip)
    assert all(torch.equal(o, e) for o, e in zip(ours, expected, strict=True))


def test_normalize_equals_torchvision():
    images = photos(3, 9, 9)
    transform = Transform(kind="none", image_size=9, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    theirs = F.normalize(F.to_dtype(images, torch.float32, scale=True), list(transform.mean), list(transform.std))
    torch.testing.assert_close(transform.normalize(images), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalize_by_parts_is_the_formula_bit_for_bit_in_the_same_layout(count, channels, layout):
    images = photos(8, 230, 210)[:count, :channels].contiguous(memory_format=layout)  # larger than one part
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    ours = Transform(kind="none", image_size=9, mean=mean, std=std).normalize(images)
    shape = (1, channels, 1, 1)
    expected = (images.float() - torch.tensor(mean).view(shape) * 255) / (torch.tensor(std).view(shape) * 255)
    assert torch.equal(ours, expected)
    assert ours.is_contiguous(memory_format=layout)


def test_normalize_leaves_its_argument_alone():
    images = torch.full((1, 3, 2, 2), 7.0)
    plain("none", 2).normalize(images)
    assert (images == 7).all()


def test_train_none_leaves_images_alone():
    images = photos(5, 16, 16)
    ours = plain("none", 16, horizontal_flip=False).train(canvas(images), np.arange(5), 0, 0, CPU)
    assert torch.equal(ours, images / 255)


def test_train_shift_draws_every_translation_and_both_mirrors_equally_often():
    images = torch.zeros(6000, 3, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2], images[:, :, 2, 3] = 255, 51  # the second pixel tells the mirrored ones
    ours = plain("shift", 5, shift_pixels=1).train(canvas(images), np.arange(6000), 0, 0, CPU)[:, 0]
    place = (ours == 1).flatten(1).int().argmax(1)
    mirrored = (ours == 1).nonzero()[:, 2] > (ours == 0.2).nonzero()[:, 2]
    seen = torch.bincount(place * 2 + mirrored, minlength=50).view(5, 5, 2)[1:4, 1:4]
    assert seen.sum() == 6000
    assert (seen - 6000 / 18).abs().max() < 5 * (6000 / 18) ** 0.5


def test_train_without_flip_never_mirrors():
    images = photos(40, 16, 16)
    crop = plain("random_resized_crop", 16, crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0), horizontal_flip=False)
    torch.testing.assert_close(cropped(crop, images, np.arange(40), 0, 0), images / 255)


def test_train_crop_equals_torchvision_with_the_same_boxes():
    images, samples = photos(8, 100, 120), np.arange(8)
    ours = cropped(plain("random_resized_crop", 48), images, samples, 5, 2)
    draws = sample_uniforms(5, 2, samples, 43)
    boxes = random_crop_boxes(np.full(8, 100), np.full(8, 120), draws[:, 3:], PAPER_SCALE, PAPER_ASPECT)
    for image, box, draw, got in zip(images, boxes.tolist(), draws, ours, strict=True):
        theirs = F.resized_crop(image, *box, size=[48, 48], antialias=True)  # uint8, as here
        assert torch.equal(got, (F.hflip(theirs) if draw[0] < 0.5 else theirs) / 255)


@pytest.mark.parametrize("kind", ["none", "shift", "random_resized_crop"])
def test_train_depends_on_seed_epoch_and_sample_alone(kind):
    images = photos(12, 24, 24)
    transform = plain(kind, 24, shift_pixels=3)

    def augment(rows, seed=0, epoch=0):
        return cropped(transform, images, np.array(rows), seed, epoch)

    whole = augment(list(range(12)))
    parts = [augment(rows) for rows in ([0], [1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11])]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole.flip(0), augment(list(range(11, -1, -1))))
    assert not torch.equal(whole, augment(list(range(12)), seed=1))
    assert not torch.equal(whole, augment(list(range(12)), epoch=1))


def boxes_of(height: int, width: int, count: int, scale=PAPER_SCALE, aspect=PAPER_ASPECT) -> np.ndarray:
    draws = sample_uniforms(0, 0, np.arange(count), 40)
    return random_crop_boxes(np.full(count, height), np.full(count, width), draws, scale, aspect)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 341), (1024, 256), (1, 1), (3, 2), (1, 2000), (40, 7)])
def test_crop_boxes_stay_inside_the_image(height, width):
    top, left, box_height, box_width = boxes_of(height, width, 3000).T
    assert min(top.min(), left.min()) >= 0
    assert min(box_height.min(), box_width.min()) >= 1
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()


def test_crop_boxes_keep_area_and_aspect_in_their_ranges():
    _, _, height, width = boxes_of(400, 500, 5000, (0.2, 0.9), (0.5, 2.0)).T
    area, aspect = height * width / (400 * 500), width / height
    assert 0.195 < area.min() < 0.21
    assert 0.85 < area.max() < 0.905
    assert 0.49 < aspect.min() < 0.52
    assert 1.85 < aspect.max() < 2.03


@pytest.mark.parametrize(("height", "width"), [(256, 341), (300, 200), (60, 240), (500, 100)])
def test_crop_boxes_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    get = v2.RandomResizedCrop(8, scale=PAPER_SCALE, ratio=PAPER_ASPECT).make_params
    drawn = [get([image]) for _ in range(1500)]
    theirs = np.array([[d["top"], d["left"], d["height"], d["width"]] for d in drawn])
    ours = boxes_of(height, width, 6000)
    quantiles = np.linspace(0.05, 0.95, 10)
    for column, span in zip(range(4), (height, width, height, width), strict=True):
        difference = np.quantile(ours[:, column], quantiles) - np.quantile(theirs[:, column], quantiles)
        assert np.abs(difference).max() < 0.06 * span


@pytest.mark.parametrize(("height", "width"), [(1000, 10), (10, 1000), (9, 100), (100, 100)])
def test_crop_boxes_that_cannot_fit_are_torchvisions_central_ones(height, width):
    crop = v2.RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(0.9, 0.95))  # never fits these images
    theirs = crop.make_params([torch.empty(1, height, width)])
    ours = boxes_of(height, width, 3, (1.0, 1.0), (0.9, 0.95))
    assert ours.tolist() == [[theirs[key] for key in ("top", "left", "height", "width")]] * 3


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 84), (90, 64)])
def test_evaluate_is_torchvisions_centre_crop(height, width):
    images = photos(4, height, width)
    ours = evaluated(plain("random_resized_crop", 56), UniformStore(images.numpy()))
    assert torch.equal(ours, F.center_crop(images, [56, 56]) / 255)


@pytest.mark.parametrize("side", [56, 100, 200])
def test_evaluate_is_torchvisions_resize_and_centre_crop_of_a_square(side):
    images = photos(4, side, side)
    ours = evaluated(plain("random_resized_crop", 56), UniformStore(images.numpy()))
    theirs = F.center_crop(F.resize(images, [64], antialias=True), [56, 56])
    torch.testing.assert_close(ours * 255, theirs.float(), atol=1.01, rtol=0)  # rounded on the way


def test_evaluate_centres_each_image_of_mixed_sizes():
    small, large = photos(1, 64, 70)[0], photos(2, 80, 64)[1]
    buffer = np.concatenate([small.numpy().ravel(), large.numpy().ravel()])
    offsets = np.array([0, small.numel()])
    store = RaggedStore(buffer, offsets, np.array([64, 80]), np.array([70, 64]), 3)
    ours = evaluated(plain("random_resized_crop", 56), store)
    assert torch.equal(ours[0], F.center_crop(small, [56, 56]) / 255)
    assert torch.equal(ours[1], F.center_crop(large, [56, 56]) / 255)


def test_evaluate_enlarges_what_is_smaller_than_the_crop():
    images = photos(2, 20, 30)
    assert central_squares(np.array([20, 31]), np.array([30, 20])).tolist() == [[0, 5, 20, 20], [5, 0, 20, 20]]
    ours = evaluated(plain("random_resized_crop", 28), UniformStore(images.numpy()))
    theirs = F.center_crop(F.resize(images[:, :, :, 5:25], [32, 32], antialias=True), [28, 28])
    assert torch.equal(ours, theirs / 255)


@pytest.mark.parametrize(("kind", "shape"), [("random_resized_crop", (28, 28)), ("none", (30, 30)), ("none", (28, 20))])
def test_evaluate_rejects_images_that_were_not_read_for_it(kind, shape):
    with pytest.raises(ValueError, match="images must be"):
        plain(kind, 28).evaluate(canvas(photos(1, *shape)), CPU)
