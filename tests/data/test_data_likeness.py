"""Images to score that look almost like training images are named after decoding."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
import pytest

import raytricks
from raytricks.config.schema import DataConfig
from raytricks.data.likeness import likeness_notes
from raytricks.data.loading import find_data
from raytricks.data.prepared import prepare_data
from raytricks.report.progress import Reporter

SIDE = 96


def photo(rng: np.random.Generator) -> Image.Image:
    """Draw smooth random patches, of which no two look alike."""
    cells = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8))
    return cells.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 10)):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                photo(rng).save(tmp_path / split / label / f"{number}.png")
    return tmp_path


def notes_of(folder: Path, **settings) -> list[str]:
    settings = {"image_size": 64, "channels": 3, "augmentation": "shift", "shift_pixels": 4} | settings
    config = DataConfig(path=str(folder), **settings)  # type: ignore[arg-type]
    splits = find_data(config, 0)
    return likeness_notes(splits, prepare_data(splits, config))


EDITS = {
    "compressed": (lambda image: image, {"quality": 40}),
    "smaller": (lambda image: image.resize((71, 71)), {}),
    "brighter": (lambda image: image.point(lambda value: min(255, int(value * 1.2))), {}),
    "sharper": (lambda image: image.filter(ImageFilter.SHARPEN), {}),
}


@pytest.mark.parametrize("augmentation", ["shift", "random_resized_crop"])
@pytest.mark.parametrize("edit", EDITS)
def test_likeness_of_edited_copies_is_noted_with_a_pair_and_the_remedy(folder, edit, augmentation):
    assert notes_of(folder, augmentation=augmentation) == []
    change, options = EDITS[edit]
    for number in range(3):
        image = change(Image.open(folder / f"train/a/{number}.png"))
        image.save(folder / f"val/a/copy{number}.jpg", **options)
    (note,) = notes_of(folder, augmentation=augmentation)
    assert note.startswith("3 of 23 images of val look almost like a training image ")
    assert f"({folder}/val/a/copy0.jpg and {folder}/train/a/0.png)" in note and "data.group" in note


def test_likeness_of_plain_and_of_small_images_says_nothing(folder, tmp_path):
    for split in ("train", "val"):
        Image.new("RGB", (SIDE, SIDE), (90, 90, 90)).save(folder / split / "a" / "plain.png")
        Image.open(folder / "train/b/1.png").resize((40, 40)).save(folder / split / "b" / "small.png")
    assert notes_of(folder, augmentation="random_resized_crop") == []


def test_likeness_is_said_before_a_run_trains(folder, tmp_path, capsys):
    Image.open(folder / "train/a/0.png").save(folder / "val/a/copy.jpg", quality=50)
    settings = {"data.image_size": 64, "model.name": "resnet8", "model.width": 8, "recipe.global_batch_size": 16}
    settings |= {"recipe.epochs": 1, "tricks.warmup.epochs": 0, "output_dir": str(tmp_path / "runs")}
    raytricks.train(folder, settings, reporter=Reporter("text"))
    assert "note      one of 21 images of val looks almost like a training image" in capsys.readouterr().out
