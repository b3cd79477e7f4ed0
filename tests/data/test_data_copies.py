"""Images that are in two splits are named before training."""

from pathlib import Path
import shutil

import numpy as np
from PIL import Image
import pytest

from raytricks.config.schema import DataConfig
from raytricks.data import copies
from raytricks.data.loading import find_data


@pytest.fixture
def folder(tmp_path) -> Path:
    """Noise, no two images of which are equal: as BMP, so that all files have one size."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for label in "ab":
            for number in range(count):
                path = tmp_path / split / label / f"{number}.bmp"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(path)
    return tmp_path


def notes_of(folder: Path, **settings) -> tuple[str, ...]:
    return find_data(DataConfig(path=str(folder), **settings), 0).notes


def test_copies_between_splits_are_a_warning(folder):
    assert notes_of(folder) == ()
    for number in range(3):
        shutil.copy(folder / f"train/a/{number}.bmp", folder / f"val/a/{number}.bmp")
    shutil.copy(folder / "train/b/0.bmp", folder / "test/a/0.bmp")
    of_val, of_test = notes_of(folder)
    assert of_val.startswith("warning: 3 of 8 images of val are in train too ")
    assert f"{folder}/val/a/0.bmp = {folder}/train/a/0.bmp" in of_val
    assert of_test.startswith("warning: one of 8 images of test is in train too ")


def test_copies_between_train_and_what_is_held_out_are_a_warning(folder):
    for number in range(6):
        shutil.copy(folder / f"train/a/{number}.bmp", folder / f"train/a/copy{number}.bmp")
    (note,) = notes_of(folder / "train", val_fraction=0.3)
    assert "held out of the images are in train too" in note


def test_copies_are_looked_for_in_few_files_only(folder, monkeypatch):
    shutil.copy(folder / "train/a/0.bmp", folder / "val/a/0.bmp")
    assert len(notes_of(folder)) == 1
    monkeypatch.setattr(copies, "_MOST_FILES", 31)
    assert notes_of(folder) == ()
    monkeypatch.setattr(copies, "_MOST_FILES", 99)
    read = []
    monkeypatch.setattr(copies, "_digest", lambda path: read.append(path) or path.encode())
    monkeypatch.setattr(copies, "_MOST_READ", 10)
    notes_of(folder)
    assert len(read) == 30  # of two pairs of splits, and of the classes


def test_copies_in_two_classes_are_a_warning(folder):
    """Whatever the file is called; copies within a class are none."""
    shutil.copy(folder / "train/a/0.bmp", folder / "train/a/again.bmp")
    assert notes_of(folder) == ()
    shutil.copy(folder / "train/a/1.bmp", folder / "train/b/named otherwise.bmp")
    (note,) = notes_of(folder)
    assert note.startswith("warning: one training image is in two classes ")
    assert f"{folder}/train/a/1.bmp = {folder}/train/b/named otherwise.bmp" in note
    shutil.copy(folder / "train/b/1.bmp", folder / "train/a/12.bmp")
    assert "2 training images are in two classes" in notes_of(folder)[0]
