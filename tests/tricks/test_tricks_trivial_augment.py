"""TrivialAugment, bit for bit against torchvision's own class under its own draws."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from raytricks.tricks.trivial_augment import OPERATIONS, choose_operations, trivial_augment

LARGEST = 1 - 2**-53
PAPER_OPERATIONS = {  # Müller & Hutter 2021, table 1: 14 operations
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
}


def images_of(count: int, channels: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    """Return random images of gradients and noise, some of low contrast."""
    generator = torch.Generator().manual_seed(count)
    ramp = torch.linspace(0, 160, width).expand(count, channels, height, width)
    images = ramp + torch.rand(count, channels, height, width, generator=generator) * 90
    images[::3] = images[::3] / 4 + 60
    return images.to(torch.uint8)


def draws_of(operation: str, strength: float = 0.0, sign: float = 0.9) -> np.ndarray:
    return np.array([[(OPERATIONS.index(operation) + 0.5) / len(OPERATIONS), strength, sign]])


def torchvisions_draws(seed: int) -> np.ndarray:
    """Return the uniforms for what TrivialAugmentWide draws after `torch.manual_seed(seed)`."""
    torch.manual_seed(seed)
    operation, strength, sign = int(torch.randint(14, ())), int(torch.randint(31, ())), float(torch.rand(()))
    return np.array([(operation + 0.5) / 14, (strength + 0.5) / 31, 0.25 if sign <= 0.5 else 0.75])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 20), (65, 64)])
def test_trivial_augment_equals_torchvision_bit_for_bit(channels, height, width):
    images, theirs = images_of(250, channels, height, width), v2.TrivialAugmentWide()
    draws = np.stack([torchvisions_draws(seed) for seed in range(250)])
    ours, choices = trivial_augment(images, draws), choose_operations(draws, 250, height, width)
    assert {name for name, _ in choices} == set(OPERATIONS)
    for seed, (image, got) in enumerate(zip(images, ours, strict=True)):
        torch.manual_seed(seed)
        assert torch.equal(got, theirs(image)), choices[seed]


def test_trivial_augment_has_the_papers_operations_each_equally_often():
    assert set(OPERATIONS) == PAPER_OPERATIONS
    draws = np.random.default_rng(0).random((14_000, 3))
    names = [name for name, _ in choose_operations(draws, 14_000, 32, 32)]
    counts = np.array([names.count(name) for name in OPERATIONS])
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 13 / 14)


@pytest.mark.parametrize(
    ("operation", "strength", "sign", "expected"),
    [
        ("Rotate", 0.0, 0.9, 0.0),
        ("Rotate", LARGEST, 0.5, 135.0),
        ("Rotate", LARGEST, 0.499, -135.0),
        ("Rotate", 15.5 / 31, 0.9, 67.5),
        ("ShearX", LARGEST, 0.0, -0.99),
        ("TranslateY", LARGEST, LARGEST, 32.0),
        ("Brightness", LARGEST, 0.0, -0.99),
        ("Posterize", 0.0, 0.0, 8.0),
        ("Posterize", LARGEST, 0.0, 2.0),
        ("Solarize", 0.0, 0.0, 1.0),
        ("Solarize", LARGEST, 0.0, 0.0),
        ("Equalize", LARGEST, 0.0, 0.0),
    ],
)
def test_trivial_augment_strengths_and_signs_by_hand(operation, strength, sign, expected):
    name, magnitude = choose_operations(draws_of(operation, strength, sign), 1, 32, 32)[0]
    assert name == operation
    assert magnitude == pytest.approx(expected)


def test_trivial_augment_uses_all_31_strengths_and_both_signs():
    draws = np.random.default_rng(0).random((6000, 3))
    draws[:, 0] = draws_of("TranslateX")[0, 0]
    magnitudes = [magnitude for _, magnitude in choose_operations(draws, 6000, 32, 32)]
    assert len(set(np.abs(magnitudes))) == 31
    assert np.mean(np.array(magnitudes) < 0) == pytest.approx(30 / 62, abs=5 * 0.5 / np.sqrt(6000))


def test_trivial_augment_at_the_ends_of_the_draws():
    assert choose_operations(np.zeros((1, 3)), 1, 8, 8) == [(OPERATIONS[0], 0.0)]
    assert choose_operations(np.full((1, 3), LARGEST), 1, 8, 8)[0][0] == OPERATIONS[-1]


def test_trivial_augment_by_hand():
    image = torch.tensor([[0, 10, 100], [200, 255, 128], [7, 8, 9]], dtype=torch.uint8)[None, None]
    solarized = trivial_augment(image, draws_of("Solarize", LARGEST))
    assert torch.equal(solarized, 255 - image)
    shifted = trivial_augment(image, draws_of("TranslateX", 1.5 / 31))  # 32/30 pixels, cut to 1
    assert shifted.flatten().tolist() == [0, 0, 10, 0, 200, 255, 0, 7, 8]
    brighter = trivial_augment(image, draws_of("Brightness", LARGEST))  # times 1.99
    assert brighter.flatten().tolist() == [0, 19, 199, 255, 255, 254, 13, 15, 17]


def test_trivial_augment_colour_leaves_gray_alone():
    images = images_of(1, channels=1)
    assert torch.equal(trivial_augment(images, draws_of("Color", LARGEST)), images)


@pytest.mark.parametrize("side", [16, 72])
def test_trivial_augment_of_an_image_is_the_same_in_any_batch(side):
    images, draws = images_of(60, 3, side, side), np.random.default_rng(1).random((60, 3))
    draws[::4, 1:] = 0.7  # some share operation and strength
    draws[::4, 0] = (np.arange(15) // 2 + 0.5) / 14
    whole = trivial_augment(images, draws)
    for parts in (1, 2, 9, 60):
        rows = np.array_split(np.arange(60), parts)
        assert torch.equal(torch.cat([trivial_augment(images[r], draws[r]) for r in rows]), whole)


def test_trivial_augment_rounds_floats_and_clamps_them():
    floats = torch.tensor([[-3.0, 0.4, 99.6, 260.0]])[None, None]
    ours = trivial_augment(floats, draws_of("Identity"))
    assert ours.dtype == torch.uint8
    assert ours.flatten().tolist() == [0, 0, 100, 255]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_trivial_augment_leaves_its_argument_alone(operation):
    images = images_of(1)
    before = images.clone()
    result = trivial_augment(images, draws_of(operation, LARGEST))
    result.zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("images", "draws", "message"),
    [
        (images_of(2, channels=2), np.zeros((2, 3)), r"shape \(N, 1 or 3, H, W\), got \(2, 2, 16, 16\)"),
        (images_of(2)[0], np.zeros((2, 3)), r"shape \(N, 1 or 3, H, W\), got \(3, 16, 16\)"),
        (images_of(2), np.zeros((3, 3)), r"draws must have the shape \(2, 3\), got \(3, 3\)"),
    ],
)
def test_trivial_augment_rejects(images, draws, message):
    with pytest.raises(ValueError, match=message):
        trivial_augment(images, draws)
