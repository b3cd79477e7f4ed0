"""A small model of colour photographs, trained once for these tests."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
import pytest

import raytricks

CLASSES = ("blue", "green", "red")


def photo(rng: np.random.Generator, colour: int, size: tuple[int, int] = (41, 33)) -> Image.Image:
    """A smooth picture in which one channel prevails."""
    width, height = size
    pixels = rng.integers(0, 160, (height, width, 3))
    pixels[:, :, colour] += rng.integers(20, 95)
    return Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))


def write_photos(root: Path, per_class: int, seed: int) -> Path:
    """Write a folder of class folders of JPEGs."""
    rng = np.random.default_rng(seed)
    for name, colour in zip(CLASSES, (2, 1, 0), strict=True):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            photo(rng, colour).save(root / name / f"{number:03d}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Other photographs than the run's, 40 a class."""
    return write_photos(tmp_path_factory.mktemp("photos") / "photos", 40, 1)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory) -> Path:
    """A finished run: 3 epochs, an average of the weights, 120 photographs of which a quarter are evaluated."""
    folder = tmp_path_factory.mktemp("use")
    write_photos(folder / "data", 40, 0)
    settings = {
        "data.path": str(folder / "data"),
        "data.val_fraction": 0.25,
        "data.image_size": 32,
        "data.augmentation": "none",
        "data.horizontal_flip": False,
        "model.name": "resnet8",
        "model.width": 8,
        "recipe.epochs": 3,
        "recipe.global_batch_size": 16,
        "recipe.base_lr": 1.0,
        "tricks.warmup.epochs": 1.0,
        "tricks.ema.decay": 0.5,
        "hardware.precision": "fp32",
        "logging.tensorboard": False,
        "checkpoint.keep": 2,
        "output_dir": str(folder / "runs"),
        "name": "trained",
    }
    result = raytricks.train(None, settings)
    assert result is not None
    return result.run_dir
