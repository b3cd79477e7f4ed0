"""Colour jitter and PCA noise, against torchvision, colorsys and hand-computed colours."""

import colorsys
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from raytricks.tricks.color_jitter import (
    jitter_color,
    join_hue,
    pca_noise,
    scale_hue,
    scale_saturation,
    split_hue,
    standard_normals,
)

PAPER = {"brightness": 0.4, "saturation": 0.4, "hue": 0.4}
PRIMARIES = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]]


def images_of(count: int = 6, side: int = 9, channels: int = 3) -> torch.Tensor:
    """Return random images, whose first pixels are black, white, primary and gray."""
    images = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(count)) * 255
    if channels == 3:
        images[:, :, 0, :7] = torch.tensor(PRIMARIES, dtype=torch.float32).T
        images[:, :, 1, :] = images[:, :1, 1, :]
    return images


def pixel(*color: float) -> torch.Tensor:
    return torch.tensor(color, dtype=torch.float32).view(1, -1, 1, 1)


def uniforms(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape)


@pytest.mark.parametrize(
    ("draw", "expected"), [(0.0, 60.0), (0.25, 80.0), (0.5, 100.0), (0.75, 120.0), (1 - 2**-53, 140.0)]
)
def test_jitter_brightness_spans_one_minus_x_to_one_plus_x(draw, expected):
    draws = np.array([[0.9, 0.1, draw]])
    assert jitter_color(pixel(100), draws, 0.4, 0.0, 0.0).item() == pytest.approx(expected)


def test_jitter_brightness_is_clamped_to_white():
    assert jitter_color(pixel(250), np.array([[0.0, 0.0, 0.9]]), 0.4, 0.0, 0.0).item() == 255


def test_jitter_saturation_by_hand():
    ours = jitter_color(pixel(200, 100, 0), np.array([[0.9, 0.0, 0.9]]), 0.0, 0.4, 0.0)
    torch.testing.assert_close(ours, pixel(167.392, 107.392, 47.392))  # 0.6 of it and 0.4 of the luma 118.48


@pytest.mark.parametrize(
    ("color", "factor", "expected"),
    [
        ((0, 255, 0), 1.25, (0, 255, 127.5)),  # 1/3 turn to 5/12
        ((0, 0, 200), 0.75, (0, 200, 200)),  # 2/3 to 1/2
        ((255, 0, 255), 1.4, (255, 255, 0)),  # 5/6 to 7/6, which is 1/6
        ((255, 0, 0), 1.4, (255, 0, 0)),  # red is at 0
        ((90, 90, 90), 0.6, (90, 90, 90)),
    ],
)
def test_jitter_hue_is_multiplied_and_wrapped_by_hand(color, factor, expected):
    ours = scale_hue(pixel(*color), torch.full((1, 1, 1), factor))
    torch.testing.assert_close(ours, pixel(*expected), atol=1e-3, rtol=0)
    draws = np.array([[0.5 + (factor - 1) / 2, 0.1, 0.9]])
    torch.testing.assert_close(jitter_color(pixel(*color), draws, 0, 0, 1.0), ours, atol=1e-3, rtol=0)


def test_jitter_hue_equals_colorsys():
    images, factors = images_of(), torch.tensor([0.0, 0.6, 0.9, 1.0, 1.1, 1.4])
    hue, value, chroma = split_hue(images)
    ours = scale_hue(images, factors.view(-1, 1, 1))
    for i, row, column in np.ndindex(6, 9, 9):
        h, s, v = colorsys.rgb_to_hsv(*images[i, :, row, column].tolist())
        assert value[i, row, column].item() == v
        assert chroma[i, row, column].item() == pytest.approx(s * v, abs=1e-3)
        assert hue[i, row, column].item() == pytest.approx(h, abs=1e-5)
        expected = colorsys.hsv_to_rgb(h * factors[i].item() % 1, s, v)
        assert ours[i, :, row, column].tolist() == pytest.approx(expected, abs=5e-3)


def test_jitter_hue_splits_and_joins_to_the_same_image():
    images = images_of()
    torch.testing.assert_close(join_hue(*split_hue(images)), images, atol=1e-3, rtol=0)
    torch.testing.assert_close(scale_hue(images, torch.ones(6, 1, 1)), images, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shift", [-0.5, -0.31, 0.0, 0.1, 0.5])
def test_jitter_hue_turned_by_an_angle_equals_torchvision(shift):
    images = images_of()
    hue, value, chroma = split_hue(images)
    ours = join_hue((hue + shift).remainder(1), value, chroma)
    torch.testing.assert_close(ours / 255, F.adjust_hue(images / 255, shift), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 2.0])
def test_jitter_saturation_and_brightness_equal_torchvision(factor):
    images, draws = images_of(), np.full((6, 3), factor / 2)
    saturated = scale_saturation(images, torch.full((6, 1, 1, 1), factor))
    torch.testing.assert_close(saturated / 255, F.adjust_saturation(images / 255, factor), atol=1e-6, rtol=0)
    torch.testing.assert_close(jitter_color(images, draws, 0.0, 1.0, 0.0), saturated)
    brightened = jitter_color(images, draws, 1.0, 0.0, 0.0)
    torch.testing.assert_close(brightened / 255, F.adjust_brightness(images / 255, factor), atol=1e-6, rtol=0)


def test_jitter_goes_hue_saturation_brightness_each_by_its_own_draw():
    images, draws = images_of(20), uniforms(20, 3)
    ours = jitter_color(images, draws, **PAPER)
    for image, (hue, saturation, brightness), got in zip(images, 0.6 + 0.8 * draws, ours, strict=True):
        turned = scale_hue(image[None], torch.full((1, 1, 1), hue))[0] / 255
        theirs = F.adjust_brightness(F.adjust_saturation(turned, saturation), brightness)
        torch.testing.assert_close(got / 255, theirs, atol=1e-5, rtol=0)


def test_jitter_stays_in_range():
    ours = jitter_color(images_of(200), uniforms(200, 3), 1.0, 1.0, 1.0)
    assert ours.min() >= 0
    assert ours.max() <= 255


def test_jitter_and_noise_of_an_image_are_the_same_in_any_batch():
    images, draws = images_of(17), uniforms(17, 6)

    def change(rows) -> torch.Tensor:
        jittered = jitter_color(images[rows], draws[rows, :3], **PAPER)
        return pca_noise(jittered, standard_normals(draws[rows, 3:]), 0.1)

    whole = change(np.arange(17))
    for parts in (1, 2, 5, 17):
        assert torch.equal(torch.cat([change(rows) for rows in np.array_split(np.arange(17), parts)]), whole)


def test_jitter_leaves_its_argument_alone():
    images = images_of()
    before = images.clone()
    jitter_color(images, uniforms(6, 3), **PAPER)
    pca_noise(images, uniforms(6, 3), 0.1)
    assert torch.equal(images, before)


def test_jitter_and_noise_when_off_return_the_images_themselves():
    images = images_of()
    assert jitter_color(images, uniforms(6, 3), 0.0, 0.0, 0.0) is images
    assert pca_noise(images, uniforms(6, 3), 0.0) is images


def test_jitter_brightness_works_on_gray():
    images = images_of(channels=1)
    ours = jitter_color(images, np.full((6, 3), 0.25), 0.4, 0.0, 0.0)
    torch.testing.assert_close(ours, images * 0.8)


def test_pca_noise_by_hand():
    images = torch.full((3, 3, 2, 2), 100.0)
    ours = pca_noise(images, np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, -1.0]]), 0.1)
    by_axis = [  # 255 * 0.1 * eigenvalue * eigenvector
        [-3.147497, -3.221262, -3.236791],
        [0.689569, -0.004315, -0.666174],
        [-0.046003, 0.093407, -0.048229],
    ]
    expected = 100 + torch.tensor(by_axis)[:, :, None, None].expand(3, 3, 2, 2)
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=0)


def test_pca_noise_is_not_clamped():
    assert pca_noise(torch.full((1, 3, 1, 1), 255.0), np.array([[-1.0, 0, 0]]), 0.1).min() > 258


def test_pca_noise_has_the_variance_of_imagenets_colours():
    normals = standard_normals(uniforms(20_000, 3))
    shift = pca_noise(torch.zeros(20_000, 3, 1, 1), normals, 0.1).squeeze().numpy() / 255
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    expected = 0.01 * vectors @ np.diag(np.array([0.2175, 0.0188, 0.0045]) ** 2) @ vectors.T
    assert np.abs(np.cov(shift.T) / expected - 1).max() < 0.05  # standard error sqrt(2 / 20,000) = 0.01
    assert np.abs(shift.mean(0)).max() < 5 * 0.013 / np.sqrt(20_000)


def test_standard_normals_equal_pythons_and_stay_finite_at_zero():
    draws = np.append(uniforms(200), [2**-53, 0.5, 1 - 2**-53])
    expected = [NormalDist().inv_cdf(u) for u in draws]
    np.testing.assert_allclose(standard_normals(draws), expected, atol=1e-9, rtol=1e-6)
    assert -9 < standard_normals(np.zeros(1))[0] < standard_normals(np.array([2**-53]))[0] < -8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jitter_color(images_of(), uniforms(6, 3), 1.5, 0, 0), r"brightness must be in \[0, 1\], got 1.5"),
        (lambda: jitter_color(images_of(), uniforms(6, 3), 0, -0.1, 0), r"saturation must be in \[0, 1\], got -0.1"),
        (lambda: jitter_color(images_of(), uniforms(6, 3), 0, 0, float("nan")), r"hue must be in \[0, 1\], got nan"),
        (lambda: jitter_color(images_of(), uniforms(5, 3), 0.4, 0, 0), r"draws must have the shape \(6, 3\), got"),
        (lambda: jitter_color(images_of(channels=1), uniforms(6, 3), 0, 0, 0.1), r"got \(6, 1, 9, 9\); gray has no"),
        (lambda: jitter_color(images_of().byte(), uniforms(6, 3), 0.4, 0, 0), "must be floats .* got torch.uint8"),
        (lambda: pca_noise(images_of(), uniforms(6, 3), -1), "std must be >= 0, got -1; 0 turns the noise off"),
        (lambda: pca_noise(images_of(), uniforms(6, 2), 0.1), r"normals must have the shape \(6, 3\), got \(6, 2\)"),
        (lambda: pca_noise(images_of(channels=1), uniforms(6, 3), 0.1), "gray has no hue"),
    ],
)
def test_jitter_and_noise_reject(call, message):
    with pytest.raises(ValueError, match=message):
        call()
