"""Folders of class folders: what is found, and the line that each unusable folder deserves."""

from contextlib import contextmanager
import os
from pathlib import Path
import shutil
import tempfile

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder

from raytricks.config.schema import DataConfig
from raytricks.data.loading import find_data
from raytricks.data.sources.folder import load_folder
from raytricks.errors import DataError

DIGITS = [Image.fromarray((image * 15).astype(np.uint8)) for image in load_digits().images[:10]]


def write(directory: Path, *names: str, mode: str = "L") -> None:
    """Write a digit under each of these paths below the directory."""
    for i, name in enumerate(names):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        DIGITS[i % 10].convert(mode).save(path)


def error_of(directory: Path, *mentions: str) -> str:
    """Return the one line that the folder is refused with."""
    with pytest.raises(DataError) as caught:
        load_folder(directory)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(directory))
    for mention in mentions:
        assert mention in message
    return message


def names_of(split) -> list[str]:
    return [f"{label}:{Path(path).name}" for label, path in zip(split.labels, split.images.paths, strict=True)]


def test_folder_of_classes(tmp_path):
    write(tmp_path, "b/2.png", "b/1.jpg", "a/1.jpeg", "a/x/y/3.BMP", "a/2.webp")
    found = load_folder(tmp_path)
    assert found.class_names == ("a", "b")
    assert names_of(found.train) == ["0:1.jpeg", "0:2.webp", "0:3.BMP", "1:1.jpg", "1:2.png"]
    assert found.train.labels.dtype == np.int64
    assert (found.evaluation, found.test, found.notes) == (None, None, ())


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folder_of_splits(tmp_path, val):
    write(tmp_path, "train/a/1.png", "train/b/2.png", f"{val}/a/3.png", f"{val}/b/4.png")
    found = load_folder(tmp_path)
    assert names_of(found.train) == ["0:1.png", "1:2.png"]
    assert found.evaluation is not None
    assert names_of(found.evaluation) == ["0:3.png", "1:4.png"]
    assert found.evaluation.origin == val
    assert found.test is None
    write(tmp_path, "test/a/5.png", "test/b/6.png")
    test = load_folder(tmp_path).test
    assert test is not None
    assert names_of(test) == ["0:5.png", "1:6.png"]


def test_folder_skips_hidden_and_notes_foreign_files(tmp_path):
    write(tmp_path, "a/1.png", "b/1.png", "a/.hidden.png", ".git/1.png", "a/.thumbs/1.png")
    for name in ("a/notes.txt", "b/more.txt", "b/film.gif", "b/README", "loose.csv"):
        (tmp_path / name).write_text("no image")
    found = load_folder(tmp_path)
    assert found.class_names == ("a", "b")
    assert len(found.train) == 2
    ignored, warning, hidden = found.notes
    assert ignored.startswith(str(tmp_path))
    assert ignored.endswith("a: 1 .txt, b: 1 .gif, 1 .txt, 1 no suffix")
    assert warning.startswith("warning: ") and "'b' loses 2 of 3 files (1 .gif, 1 no suffix)" in warning
    assert sorted(hidden.partition("files and folders: ")[2].split(", ")) == [".git", ".hidden.png", ".thumbs"]


@pytest.mark.parametrize(("modes", "is_grayscale"), [(("L", "L"), True), (("L", "RGB"), False), (("1", "LA"), True)])
def test_folder_is_grayscale_when_every_image_is(tmp_path, modes, is_grayscale):
    write(tmp_path, "a/1.png", mode=modes[0])
    write(tmp_path, "b/1.png", mode=modes[1])
    assert load_folder(tmp_path).train.images.is_grayscale == is_grayscale


def test_folder_knows_the_sizes_without_decoding(tmp_path):
    write(tmp_path, "a/1.png", "b/1.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "a/2.jpg")
    (tmp_path / "a/2.jpg").write_bytes((tmp_path / "a/2.jpg").read_bytes()[:-8])  # only decoding would fail
    images = load_folder(tmp_path).train.images
    assert images.heights.tolist() == [8, 20, 8]
    assert images.widths.tolist() == [8, 30, 8]


def test_folder_follows_a_linked_class(tmp_path):
    write(tmp_path, "data/a/1.png", "elsewhere/1.png")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    assert load_folder(tmp_path / "data").class_names == ("a", "b")


def test_folder_takes_the_images_that_torchvision_takes_of_linked_subfolders(tmp_path):
    write(tmp_path, "data/a/1.png", "data/b/1.png", "elsewhere/2.png", "elsewhere/deep/3.png")
    (tmp_path / "data/b/more").symlink_to(tmp_path / "elsewhere")
    theirs = ImageFolder(str(tmp_path / "data")).samples
    found = load_folder(tmp_path / "data")
    assert sorted(zip(found.train.images.paths, found.train.labels.tolist(), strict=True)) == sorted(theirs)
    assert found.notes == ()


def test_folder_follows_no_link_for_ever_and_no_folder_twice(tmp_path):
    write(tmp_path, "a/1.png", "a/x/2.png", "b/1.png")
    (tmp_path / "a/x/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/y").symlink_to(tmp_path / "a/x")
    found = load_folder(tmp_path)
    assert names_of(found.train) == ["0:1.png", "0:2.png", "1:1.png"]
    (note,) = found.notes
    assert "left out links to folders of the same class" in note and "a/x/up" in note and "a/y" in note


@pytest.fixture
def readable_by_all():
    """A directory of a user without privileges, whom a missing permission stops."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@contextmanager
def as_nobody():
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_folder_notes_a_subfolder_that_cannot_be_read(readable_by_all):
    write(readable_by_all, "a/1.png", "a/locked/2.png", "b/1.png")
    (readable_by_all / "a/locked").chmod(0)
    with as_nobody():
        found = load_folder(readable_by_all)
    (readable_by_all / "a/locked").chmod(0o755)
    assert names_of(found.train) == ["0:1.png", "1:1.png"]
    assert found.notes == (
        f"{readable_by_all}: left out folders that cannot be read: {readable_by_all}/a/locked (Permission denied)",
    )


@pytest.mark.parametrize("locked", ["a", "."])
def test_folder_that_cannot_be_read_is_refused(readable_by_all, locked):
    write(readable_by_all, "a/1.png", "b/1.png")
    (readable_by_all / locked).chmod(0o311)
    with as_nobody():
        error_of(readable_by_all, "cannot be read (Permission denied)")
    (readable_by_all / locked).chmod(0o755)


def test_folder_missing(tmp_path):
    error_of(tmp_path / "nope", "no such data directory", "wanted: DIR/CLASS")


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "f").write_text("")
    error_of(tmp_path / "f", "is a file", "wanted: DIR/CLASS")


def test_folder_empty(tmp_path):
    error_of(tmp_path, "holds nothing but no class folders", "wanted: DIR/CLASS")


def test_folder_of_images_without_classes(tmp_path):
    write(tmp_path, "1.png", "2.png")
    (tmp_path / "labels.csv").write_text("")
    error_of(tmp_path, "3 files (2 images) but no class folders", "name it: ", "labels.csv; wanted: DIR/CLASS")


def test_folder_with_an_empty_class(tmp_path):
    write(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/film.gif").write_text("")
    error_of(tmp_path, "c: class 'c' has no image (.jpg, ", "add some or remove the folder")


def test_folder_with_one_class(tmp_path):
    write(tmp_path, "cat/1.png")
    error_of(tmp_path, "only one class, 'cat'", "at least 2 are needed")


def test_folder_whose_val_has_a_class_that_train_lacks_names_it(tmp_path):
    write(tmp_path, *(f"train/{c}/1.png" for c in "abcdefgh"), "val/a/1.png", "val/z/1.png")
    error_of(tmp_path, "val has images of z, of which there are none to train on", "a, b, c, d, e and 3 more")


def test_folder_maps_the_classes_of_a_split_by_name(tmp_path):
    write(tmp_path, *(f"train/{c}/{c}.png" for c in "abc"), "test/a/5.png", "test/c/6.png")
    found = find_data(DataConfig(path=str(tmp_path)), seed=0)
    assert found.class_names == ("a", "b", "c")
    assert names_of(found.evaluation) == ["0:5.png", "2:6.png"]
    assert found.notes == ("test has no image of b: what is there is scored",)


@pytest.mark.parametrize("lone", ["val", "validation", "test"])
def test_folder_with_another_split_but_no_train(tmp_path, lone):
    write(tmp_path, f"{lone}/a/1.png", f"{lone}/b/1.png")
    error_of(tmp_path, f"holds {lone}/ but no train/", "set data.layout=classes", "wanted: DIR/CLASS")
    write(tmp_path, "images/a/1.png", "images/b/1.png")
    error_of(tmp_path, f"{lone}/: named like splits, and no folder is named like the training", "data.layout=")


def test_folder_may_have_classes_named_like_splits(tmp_path):
    write(tmp_path, "test/1.png", "exam/1.png")
    assert load_folder(tmp_path).class_names == ("exam", "test")


def test_folder_names_the_files_that_are_no_images(tmp_path):
    write(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a/bad.jpg").write_text("text")
    assert error_of(tmp_path, "a/bad.jpg: is no image", "remove it or save it again").endswith("again")
    (tmp_path / "b/worse.png").write_bytes(b"")
    error_of(tmp_path, "a/bad.jpg: is no image", "(and 1 more unreadable of 4)")


def test_find_data_holds_a_fifth_out_of_a_plain_folder(tmp_path):
    write(tmp_path / "pets", *(f"{c}/{i}.png" for c in "ab" for i in range(10)))
    splits = find_data(DataConfig(path=str(tmp_path / "pets")), seed=0)
    assert (splits.name, splits.class_names, splits.test) == ("pets", ("a", "b"), None)
    assert (len(splits.train), len(splits.evaluation)) == (16, 4)
    assert splits.evaluation.origin == "20% held out of the images"


def test_find_data_uses_the_splits_of_a_folder(tmp_path):
    write(tmp_path, *(f"{s}/{c}/{i}.png" for s in ("train", "val", "test") for c in "ab" for i in range(4)))
    splits = find_data(DataConfig(path=str(tmp_path), source="folder"), seed=0)
    assert splits.test is not None
    assert (len(splits.train), splits.evaluation.origin, splits.test.origin) == (8, "val", "test")
    held = find_data(DataConfig(path=str(tmp_path), val_fraction=0.25), seed=0)
    assert (len(held.train), len(held.evaluation)) == (6, 2)
    assert any("instead of the val folder" in note for note in held.notes)


def test_find_data_evaluates_on_test_when_there_is_no_val(tmp_path):
    write(tmp_path, *(f"{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(4)))
    splits = find_data(DataConfig(path=str(tmp_path)), seed=0)
    assert (len(splits.train), splits.evaluation.origin, splits.test) == (8, "test", None)


def test_find_data_needs_something_to_evaluate_on(tmp_path):
    write(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(DataError, match="nothing to evaluate on; set data.val_fraction above 0"):
        find_data(DataConfig(path=str(tmp_path), val_fraction=0.0), seed=0)


def test_find_data_needs_a_path():
    with pytest.raises(DataError, match="data.path is not set .* set data.source=digits"):
        find_data(DataConfig(), seed=0)
