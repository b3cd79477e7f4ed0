"""Random erasing, against torchvision and by its distribution."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from raytricks.tricks.random_erasing import ERASING_DRAWS, erase, erasing_boxes

AREA, ASPECT = (0.02, 0.33), (0.3, 3.3)


def uniforms(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, ERASING_DRAWS))


def by_hand(whether: float, *attempts: tuple[float, float, float, float]) -> np.ndarray:
    """Return the draws of one image; attempts are (area, aspect, top, left)."""
    draws = np.full((1, ERASING_DRAWS), 0.5)
    draws[0, 0] = whether
    draws[0, 1 : 1 + 4 * len(attempts)] = np.ravel(attempts)
    return draws


def test_erasing_box_by_hand():
    draws = by_hand(0.3, (0.5, 0.7, 0.5, 0.25))  # 40 of 200 pixels: 4 high, 10 wide; int(3.5) down, int(2.75) right
    assert erasing_boxes(draws, 10, 20, 0.5, (0.1, 0.3), (0.4, 0.4)).tolist() == [[3, 2, 4, 10]]
    images = torch.ones(1, 2, 10, 20)
    ours = erase(images, draws, 1.0, (0.1, 0.3), (0.4, 0.4))
    assert ours.sum() == 2 * (200 - 40)
    assert (ours[:, :, 3:7, 2:12] == 0).all()
    assert (images == 1).all()


def test_erasing_reaches_all_four_corners():
    first, last = by_hand(0, (0.5, 0.5, 0.0, 0.0)), by_hand(0, (0.5, 0.5, 1 - 2**-53, 1 - 2**-53))
    assert erasing_boxes(first, 10, 20, 1.0, (0.2, 0.2), (0.4, 0.4)).tolist() == [[0, 0, 4, 10]]
    assert erasing_boxes(last, 10, 20, 1.0, (0.2, 0.2), (0.4, 0.4)).tolist() == [[6, 10, 4, 10]]


def test_erasing_aspect_is_height_over_width_uniform_in_its_logarithm():
    for draw, box in [(0.0, [5, 20]), (0.5, [10, 10]), (1 - 2**-53, [20, 5])]:
        boxes = erasing_boxes(by_hand(0, (0.5, draw, 0, 0)), 100, 100, 1.0, (0.01, 0.01), (0.25, 4.0))
        assert boxes[0, 2:].tolist() == box


def test_erasing_takes_the_first_attempt_that_fits():
    too_wide, fits, too_late = (1.0, 0.5, 0.0, 0.0), (1 / 9, 0.5, 0.5, 0.25), (1 / 9, 0.5, 0.0, 0.0)
    draws = by_hand(0, too_wide, fits, too_late)
    assert erasing_boxes(draws, 10, 20, 1.0, (0.1, 1.0), (0.4, 0.4)).tolist() == [[3, 2, 4, 10]]


def test_erasing_leaves_an_image_whole_where_no_attempt_fits():
    assert not erasing_boxes(uniforms(50), 8, 8, 1.0, (1.0, 1.0), (1.0, 1.0)).any()
    images = torch.rand(50, 1, 8, 8)
    assert torch.equal(erase(images, uniforms(50), 1.0, (1.0, 1.0), (1.0, 1.0)), images)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (32, 20), (2, 2), (3, 40)])
def test_erasing_boxes_are_inside_and_never_as_high_or_wide_as_the_image(height, width):
    top, left, box_height, box_width = erasing_boxes(uniforms(4000), height, width, 1.0, (0.02, 1.0), ASPECT).T
    assert min(top.min(), left.min(), box_height.min(), box_width.min()) >= 0
    assert box_height.max() < height
    assert box_width.max() < width
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()


def test_erasing_area_is_uniform_in_its_range():
    _, _, height, width = erasing_boxes(uniforms(20_000), 400, 400, 1.0, (0.1, 0.3), (0.9, 1.1)).T
    area = height * width / 400**2
    assert 0.098 < area.min() < 0.102
    assert 0.298 < area.max() < 0.302
    assert area.mean() == pytest.approx(0.2, abs=5 * 0.2 / np.sqrt(12 * 20_000))
    assert area.var() == pytest.approx(0.04 / 12, rel=0.05)


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_erasing_chooses_its_part_of_the_images(probability):
    images = torch.ones(8000, 1, 8, 8)
    erased = (erase(images, uniforms(8000), probability, (0.1, 0.3), (0.5, 2.0)) == 0).flatten(1).any(1)
    tolerance = 5 * (probability * (1 - probability) / 8000) ** 0.5
    assert erased.float().mean().item() == pytest.approx(probability, abs=tolerance)


def test_erasing_starts_at_the_probability():
    draws = by_hand(0.5, (0.5, 0.5, 0.5, 0.5))
    assert not erasing_boxes(draws, 10, 20, 0.5, AREA, ASPECT).any()
    assert erasing_boxes(draws, 10, 20, 0.5000001, AREA, ASPECT).any()


def test_erasing_is_off_at_probability_zero():
    images = torch.rand(4, 3, 8, 8)
    assert erase(images, uniforms(4), 0.0, AREA, ASPECT) is images


@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_equals_torchvisions_given_its_boxes(channels):
    images, draws = torch.randn(60, channels, 17, 23), uniforms(60)
    boxes = erasing_boxes(draws, 17, 23, 0.5, AREA, ASPECT)
    assert 10 < (boxes[:, 2] > 0).sum() < 50
    zero = torch.zeros(1, 1, 1)
    ours = erase(images, draws, 0.5, AREA, ASPECT)
    for image, box, got in zip(images, boxes.tolist(), ours, strict=True):
        assert torch.equal(got, F.erase(image, *box, v=zero))


@pytest.mark.parametrize(
    ("height", "width", "area", "aspect"),
    [(32, 32, AREA, ASPECT), (28, 20, AREA, ASPECT), (8, 8, AREA, ASPECT), (16, 64, (0.5, 1.0), ASPECT)],
)
def test_erasing_boxes_are_distributed_as_torchvisions(height, width, area, aspect):
    torch.manual_seed(0)
    image, theirs_of = torch.empty(3, height, width), v2.RandomErasing(1.0, scale=area, ratio=aspect)
    drawn = [theirs_of.make_params([image]) for _ in range(3000)]
    theirs = np.array([[d[k] for k in "ijhw"] if d["v"] is not None else [0] * 4 for d in drawn], float)
    ours = erasing_boxes(uniforms(12_000), height, width, 1.0, area, aspect).astype(float)
    for measure in (
        lambda boxes: boxes[:, 2] * boxes[:, 3],
        lambda boxes: boxes[:, 0],
        lambda boxes: boxes[:, 1],
        lambda boxes: boxes[:, 2],
        lambda boxes: boxes[:, 2] > 0,
    ):
        a, b = measure(ours), measure(theirs)
        standard_error = np.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) <= 4.5 * standard_error


def test_erasing_of_an_image_is_the_same_in_any_batch():
    images, draws = torch.randn(23, 3, 12, 12), uniforms(23)
    whole = erase(images, draws, 0.7, AREA, ASPECT)
    for parts in (1, 2, 7, 23):
        rows = np.array_split(np.arange(23), parts)
        assert torch.equal(torch.cat([erase(images[r], draws[r], 0.7, AREA, ASPECT) for r in rows]), whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((uniforms(4), -0.1, AREA, ASPECT), r"probability must be in \[0, 1\], got -0.1; 0 turns erasing off"),
        ((uniforms(4), 1.1, AREA, ASPECT), r"probability must be in \[0, 1\], got 1.1"),
        ((uniforms(4), 0.5, (0.0, 0.3), ASPECT), r"area must be .* got \(0.0, 0.3\)"),
        ((uniforms(4), 0.5, (0.4, 0.3), ASPECT), r"area must be .* got \(0.4, 0.3\)"),
        ((uniforms(4), 0.5, (0.4, 1.3), ASPECT), r"area must be .* got \(0.4, 1.3\)"),
        ((uniforms(4), 0.5, AREA, (0.0, 1.0)), r"aspect must be .* got \(0.0, 1.0\)"),
        ((uniforms(4), 0.5, AREA, (2.0, 1.0)), r"aspect must be .* got \(2.0, 1.0\)"),
        ((uniforms(4)[:, 1:], 0.5, AREA, ASPECT), r"draws must have the shape \(N, 41\), got \(4, 40\)"),
        ((uniforms(3), 0.5, AREA, ASPECT), "draws must have a row for each of 4 images, got 3"),
    ],
)
def test_erasing_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        erase(torch.rand(4, 1, 8, 8), *arguments)
