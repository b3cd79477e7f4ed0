"""Describing a data set: the numbers are numpy's, the duplicates and the unreadable files those that were put there."""

import json
from pathlib import Path
import shutil

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits, load_sample_images

from raytricks.data.contact_sheet import contact_sheet
from raytricks.data.info import describe
from raytricks.data.listing import list_source
from raytricks.data.pack import pack
from raytricks.errors import DataError

PHOTOS = load_sample_images().images


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Seven training images and four to evaluate on; one is gray."""
    directory = tmp_path / "flowers"
    for i, (height, width) in enumerate([(40, 50), (60, 50), (80, 90), (100, 30), (70, 70)]):
        save(directory / f"train/cat/{i}.png", PHOTOS[0][i : i + height, i : i + width])
    for i in range(2):
        save(directory / f"train/dog/{i}.png", PHOTOS[1][i : i + 50, :50])
        save(directory / f"val/cat/{i}.png", PHOTOS[0][100 + i : 150, :50])
        save(directory / f"val/dog/{i}.png", PHOTOS[1][100 + i : 150, :50])
    save(directory / "train/dog/1.png", PHOTOS[1][:50, :50, 0])
    return directory


def test_info_counts_what_is_there(folder):
    found = describe(str(folder), workers=1)
    assert (found.name, found.kind, found.place) == ("flowers", "folder", str(folder))
    assert found.class_names == ("cat", "dog")
    assert list(found.splits) == ["train", "val"]
    train, val = found.splits["train"], found.splits["val"]
    assert (train.num_images, train.class_counts, val.class_counts) == (7, (5, 2), (2, 2))
    assert (train.height, train.width) == ((40, 60, 100), (30, 50, 90))
    assert (train.num_grayscale, val.num_grayscale) == (1, 0)
    assert train.num_bytes == sum(path.stat().st_size for path in (folder / "train").rglob("*.png"))
    assert (found.duplicates.num_repeated, found.unreadable, found.is_decoded) == (0, (), True)


def test_info_statistics_are_numpys():
    found = describe("digits", workers=1)
    pixels = np.rint(load_digits().images * 255 / 16) / 255
    sample = pixels[np.linspace(0, len(pixels) - 1, 512).astype(int)]
    assert found.mean == pytest.approx([sample.mean()], abs=1e-6)
    assert found.std == pytest.approx([sample.std()], abs=1e-6)
    assert found.splits["train"].class_counts == tuple(np.bincount(load_digits().target))
    assert (found.kind, found.place) == ("digits", "digits")


def test_info_statistics_are_per_channel(tmp_path):
    for label in range(2):
        pixels = np.zeros((20, 20, 3), np.uint8)
        pixels[..., 1] = 255 * label
        pixels[..., 2] = 51
        save(tmp_path / f"{label}/0.png", pixels)
    found = describe(str(tmp_path), workers=1)
    assert found.mean == pytest.approx((0, 0.5, 0.2))
    assert found.std == pytest.approx((0.001, 0.5, 0.001))


def test_info_finds_equal_images_between_splits_and_labels_that_disagree(folder):
    copies = {
        "train/cat/2.png": "val/cat/copy.png",  # in both splits
        "train/cat/3.png": "val/dog/copy.png",  # in both splits, with another label
        "train/cat/4.png": "train/cat/copy.png",  # twice in one
    }
    for original, copy in copies.items():
        shutil.copy(folder / original, folder / copy)
    equal = describe(str(folder), workers=1).duplicates
    assert (equal.num_repeated, equal.num_disagreeing) == (3, 1)
    assert equal.between_splits == {"train, val": 2}
    assert equal.examples == (
        "train/cat/3.png (cat) = val/dog/copy.png (dog)",
        "train/cat/2.png = val/cat/copy.png",
        "train/cat/4.png = train/cat/copy.png",
    )


def test_info_counts_every_copy_once(tmp_path):
    for name in ("a/0", "a/1", "a/2", "b/0", "b/1"):
        save(tmp_path / f"train/{name}.png", PHOTOS[0][:20, :20])
        save(tmp_path / f"test/{name}.png", PHOTOS[0][:20, :20])
    equal = describe(str(tmp_path), workers=1).duplicates
    assert (equal.num_repeated, equal.between_splits, equal.num_disagreeing) == (9, {"train, test": 5}, 1)
    assert equal.examples == ("train/a/0.png (a) = train/b/0.png (b)",)


def test_info_finds_duplicates_of_idx_files(tmp_path):
    images = np.rint(load_digits().images[:6] * 15).astype(np.uint8)
    for split, chosen, labels in (("train", [0, 1, 2, 3], [0, 1, 2, 3]), ("t10k", [1, 4, 5], [1, 0, 1])):
        for kind, array in (("images-idx3", images[chosen]), ("labels-idx1", np.array(labels, np.uint8))):
            head = bytes((0, 0, 8, array.ndim)) + b"".join(side.to_bytes(4, "big") for side in array.shape)
            (tmp_path / f"{split}-{kind}-ubyte").write_bytes(head + array.tobytes())
    found = describe(str(tmp_path), workers=1)
    assert (found.kind, found.splits["test"].origin) == ("idx", "t10k")
    assert found.splits["test"].class_counts == (1, 2, 0, 0)
    assert found.duplicates.between_splits == {"train, test": 1}
    assert found.duplicates.examples == ("train/1 = test/0",)
    assert found.splits["train"].num_bytes == 4 * 64


def damage(folder: Path) -> None:
    (folder / "train/cat/1.png").write_text("text")
    path = folder / "val/dog/0.png"
    path.write_bytes(path.read_bytes()[:-200])


def test_info_lists_unreadable_images_and_goes_on(folder):
    damage(folder)
    found = describe(str(folder), workers=1)
    assert [line.split(": ")[0] for line in found.unreadable] == [
        str(folder / name) for name in ("train/cat/1.png", "val/dog/0.png")
    ]
    train = found.splits["train"]
    assert (train.num_images, train.num_unreadable, train.height) == (7, 1, (40, 60, 100))
    assert train.num_bytes == sum(path.stat().st_size for path in (folder / "train").rglob("*.png")) - 4
    assert found.duplicates.num_repeated == 0  # two unreadable images are not equal


def test_info_of_nothing_readable_does_not_fail(tmp_path):
    for name in ("a/0.png", "b/0.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("text")
    found = describe(str(tmp_path), workers=1)
    assert (len(found.unreadable), found.mean, found.splits["train"].height) == (2, (), (0, 0, 0))


@pytest.mark.parametrize("verify", [False, True])
def test_info_of_shards_is_that_of_the_source(folder, tmp_path, verify):
    shutil.copy(folder / "train/cat/3.png", folder / "val/dog/copy.png")
    pack(str(folder), tmp_path / "out", short_side=0, workers=1)
    ours, theirs = (describe(str(path), workers=1, verify=verify) for path in (tmp_path / "out", folder))
    for name in ("class_names", "splits", "mean", "std", "duplicates", "unreadable"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours.kind, ours.is_decoded, ours.place) == ("shards", verify, str(tmp_path / "out"))


def test_info_verifies_shards(folder, tmp_path):
    pack(str(folder), tmp_path / "out", short_side=0, workers=1)
    path = tmp_path / "out/train-00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-00000\.arrow: damaged, its sha256 differs"):
        describe(str(tmp_path / "out"), verify=True, workers=1)


def test_info_is_plain_values(folder):
    damage(folder)
    found = describe(str(folder), workers=1)
    again = json.loads(json.dumps(found.as_dict()))
    assert again["splits"]["train"]["class_counts"] == [5, 2]
    assert again["unreadable"] == list(found.unreadable)


def test_info_reports_its_progress(folder):
    counts: list[int] = []
    describe(str(folder), workers=1, progress=counts.append)
    assert sum(counts) == 11


def test_contact_sheet_has_a_row_of_each_class(tmp_path):
    colours = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
    for name, colour in colours.items():
        for i in range(5):
            save(tmp_path / name / f"{i}.png", np.full((30, 40, 3), colour, np.uint8))
    sheet = contact_sheet(list_source(str(tmp_path)), images_per_class=4)
    assert sheet.size == (200 + 4 * 100 + 4, 3 * 100 + 4)
    for row, colour in enumerate(colours.values()):
        for column in range(4):
            assert sheet.getpixel((200 + column * 100 + 48, 4 + row * 100 + 48)) == colour
        name = np.asarray(sheet.crop((0, 4 + row * 100, 200, 100 + row * 100)))
        assert 0.002 < (name < 128).mean() < 0.1  # ink
    assert sheet.getpixel((198, 2)) == (255, 255, 255)


def test_contact_sheet_is_drawn_from_the_seed():
    listing = list_source("digits")
    sheets = [np.asarray(contact_sheet(listing, seed=seed)) for seed in (0, 0, 1)]
    assert np.array_equal(sheets[0], sheets[1])
    assert not np.array_equal(sheets[0], sheets[2])


def test_contact_sheet_draws_what_is_unreadable_in_red_and_few_images(folder):
    damage(folder)
    sheet = contact_sheet(list_source(str(folder)), images_per_class=5)
    row = [sheet.getpixel((200 + column * 100 + 48, 52)) for column in range(5)]
    assert row.count((220, 60, 60)) == 1
    assert sheet.getpixel((200 + 3 * 100, 152)) == (255, 255, 255)  # two dogs only


def test_contact_sheet_of_long_names_and_many_classes(tmp_path):
    for i in range(203):
        save(tmp_path / (f"{i:03}" + "very long class name " * 4).strip() / "0.png", np.zeros((8, 8), np.uint8))
    sheet = contact_sheet(list_source(str(tmp_path)), images_per_class=1)
    assert sheet.height == 200 * 100 + 4
    between = np.asarray(sheet.crop((193, 0, 200, 1000)))
    assert (between == 255).all()
