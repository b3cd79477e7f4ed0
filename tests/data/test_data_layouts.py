"""Which folder is a split and which a class: layouts as they come from the web, and those that cannot be told apart."""

import os
from pathlib import Path
import unicodedata
import zlib

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits

from raytricks.config.schema import DataConfig
from raytricks.data.class_names import clean_name, in_class_order, look_alikes, natural_key
from raytricks.data.info import describe
from raytricks.data.listing import list_source
from raytricks.data.loading import find_data
from raytricks.data.pack import pack
from raytricks.data.sources.folder import load_folder
from raytricks.data.sources.layout import split_called
from raytricks.errors import DataError

DIGIT = Image.fromarray((load_digits().images[0] * 15).astype(np.uint8))


def write(directory: Path, *names: str) -> None:
    """Write noise under each of these paths, no two images alike."""
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (8, 8))
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def tree(directory: Path, *folders: str, classes: str = "ab", count: int = 3) -> None:
    write(directory, *(f"{folder}/{c}/{i}.png" for folder in folders for c in classes for i in range(count)))


def refused(directory: Path, *mentions: str, **settings) -> None:
    with pytest.raises(DataError) as caught:
        find_data(DataConfig(path=str(directory), **settings), seed=0)
    assert "\n" not in str(caught.value)
    for mention in mentions:
        assert mention in str(caught.value)


@pytest.mark.parametrize(
    ("train", "other", "role"),
    [
        ("Training", "Testing", "test"),
        ("TRAIN", "TEST", "test"),
        ("train", "Val", "evaluation"),
        ("train", "valid", "evaluation"),
        ("trn", "tst", "test"),
        ("train_set", "test_set", "test"),
        ("Training Set", "dev", "evaluation"),
        ("train-images", "EVAL", "evaluation"),
        ("seg_train", "seg_test", "test"),
        ("birds_train", "birds_val", "evaluation"),
    ],
)
def test_layout_knows_the_usual_names_of_splits(tmp_path, train, other, role):
    tree(tmp_path, train, other)
    found = load_folder(tmp_path)
    assert (found.class_names, found.train.origin) == (("a", "b"), train)
    split = getattr(found, role)
    assert split is not None and (len(split), split.origin) == (6, other)


def test_layout_of_three_splits(tmp_path):
    tree(tmp_path, "Train", "Validation", "Test")
    found = load_folder(tmp_path)
    assert found.evaluation is not None and found.test is not None
    assert [s.origin for s in (found.train, found.evaluation, found.test)] == ["Train", "Validation", "Test"]


@pytest.mark.parametrize("name", ["testament", "trainer", "evaluate me", "valve", "latest", "bus"])
def test_layout_takes_other_words_for_classes(name):
    assert split_called(name) is None


@pytest.mark.parametrize("names", [("bus", "car", "train"), ("test", "exam"), ("train", "plane"), ("Dev", "sales")])
def test_layout_takes_folders_of_images_for_classes(tmp_path, names):
    write(tmp_path, *(f"{name}/{i}.png" for name in names for i in range(3)))
    assert load_folder(tmp_path).class_names == in_class_order(names)


def test_layout_with_a_class_called_train_within_its_splits(tmp_path):
    tree(tmp_path, "train", "test")
    write(tmp_path, "train/train/1.png", "test/train/1.png", "train/test/1.png")
    assert load_folder(tmp_path).class_names == ("a", "b", "test", "train")


@pytest.mark.parametrize(
    ("names", "mention"),
    [
        (("train/1.png", "test/1.png"), "images without class folders"),
        (
            ("train/steam/1.png", "train/diesel/1.png", "bus/1.png", "car/1.png"),
            "train/: splits, or classes beside bus, car",
        ),
        (("train/a/1.png", "train/b/1.png", "images/a/1.png", "images/b/1.png"), "or classes beside images"),
        (("train/1.png", "test/a/1.png", "test/b/1.png"), "only some hold class folders"),
        (("test/a/1.png", "val/b/1.png"), "no folder is named like the training images"),
        (
            tuple(f"fold{k}/{c}/1.png" for k in (1, 2) for c in "ab"),
            "fold1/ and fold2/: all hold the same folders (a, b)",
        ),
    ],
)
def test_layout_in_doubt_is_refused_with_the_setting_that_decides(tmp_path, names, mention):
    write(tmp_path, *names)
    refused(tmp_path, mention, "set data.layout=splits or data.layout=classes")
    with pytest.raises(DataError, match=r"data\.layout"):
        list_source(tmp_path)


def test_layout_of_classes_with_folders_of_their_own(tmp_path):
    write(tmp_path, "ill/p1/1.png", "ill/p2/1.png", "well/p2/1.png", "well/p3/1.png")
    assert load_folder(tmp_path).class_names == ("ill", "well")


def test_layout_leaves_out_a_split_without_images(tmp_path):
    tree(tmp_path, "train", "test")
    (tmp_path / "val/a").mkdir(parents=True)
    found = load_folder(tmp_path)
    assert found.evaluation is None and found.test is not None
    assert "left out val/ (no images)" in found.notes[0]


def test_folder_of_images_beside_a_table_names_the_table(tmp_path):
    write(tmp_path, "images/1.png", "images/2.png")
    (tmp_path / "labels.csv").write_text("path,label\n1,a\n2,b\n")
    refused(tmp_path, "only one class, 'images'", f"name it: {tmp_path}/labels.csv")


def test_class_folder_whose_name_is_no_utf_8_is_read(tmp_path):
    tree(tmp_path, ".")
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    DIGIT.save(tmp_path / os.fsdecode(b"caf\xe9/1.png"))
    assert load_folder(tmp_path).class_names == ("a", "b", "caf\ufffd")
    assert describe(str(tmp_path)).class_names[-1].encode()


def test_layout_setting_decides(tmp_path):
    write(tmp_path, "train/steam/1.png", "train/diesel/1.png", "bus/1.png", "bus/2.png", "train/steam/2.png")
    assert load_folder(tmp_path, "classes").class_names == ("bus", "train")
    assert load_folder(tmp_path, "splits").class_names == ("diesel", "steam")
    assert find_data(DataConfig(path=str(tmp_path), layout="classes"), 0).class_names == ("bus", "train")
    assert pack(tmp_path, tmp_path.parent / "packed", layout="splits").dataset.class_names == ("diesel", "steam")
    refused(tmp_path / "train", "holds no train/", layout="splits")


def test_layout_with_two_folders_for_one_split_is_refused(tmp_path):
    tree(tmp_path, "train", "val", "Valid")
    refused(tmp_path, "Valid/ and val/ are both named like the split val")


def test_layout_leaves_out_what_lies_beside_the_splits_and_says_so(tmp_path):
    tree(tmp_path, "train", "val", "unlabelled")
    write(tmp_path, "test/1.png", "extra.png", "train/loose.png")
    found = load_folder(tmp_path)
    assert (len(found.train), found.test) == (6, None)
    (note,) = found.notes
    for beside in (
        "test/ (without class folders)",
        "unlabelled/",
        f"1 image in {tmp_path.name}/",
        "1 image in train/",
    ):
        assert beside in note


def test_layout_of_an_unpacked_archive(tmp_path):
    tree(tmp_path, "brains", "__MACOSX/brains")
    for name in ("brains/a/._0.png", "brains/a/.DS_Store", "brains/Thumbs.db", "brains/b/desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    found = load_folder(tmp_path)
    assert (found.class_names, len(found.train)) == (("a", "b"), 6)
    looked, skipped = found.notes
    assert looked.endswith("looked into brains/: nothing else is beside")
    assert set(skipped.partition("folders: ")[2].split(", ")) == {
        "__MACOSX", "._*", ".DS_Store", "Thumbs.db", "desktop.ini"
    }  # fmt: skip


@pytest.mark.parametrize("inner", ["data", "a/b/c", "images/train"])
def test_layout_looks_into_a_lone_inner_folder_of_splits(tmp_path, inner):
    tree(tmp_path, f"{inner}/train", f"{inner}/val")
    found = load_folder(tmp_path)
    assert found.evaluation is not None and found.class_names == ("a", "b")


def test_layout_looks_into_a_lone_inner_folder_of_a_split(tmp_path):
    tree(tmp_path, "seg_train/seg_train", "seg_test/seg_test")
    found = load_folder(tmp_path)
    assert found.class_names == ("a", "b") and found.test is not None and len(found.test) == 6
    assert found.notes[0].endswith("looked into seg_train/seg_train/, seg_test/seg_test/: nothing else is beside")


def test_layout_of_a_split_with_one_class_of_several_folders(tmp_path):
    tree(tmp_path, "train")
    write(tmp_path, "val/a/monday/1.png", "val/a/tuesday/2.png")
    found = load_folder(tmp_path)
    assert found.evaluation is not None and found.evaluation.labels.tolist() == [0, 0]


def test_layout_of_splits_within_the_classes(tmp_path):
    write(tmp_path, *(f"{c}/{s}/{i}.png" for c in "ab" for s in ("Train", "Test") for i in range(3)))
    found = load_folder(tmp_path)
    assert found.class_names == ("a", "b") and found.test is not None
    assert (len(found.train), len(found.test), found.test.origin) == (6, 6, "CLASS/Test")
    assert not set(found.train.images.paths) & set(found.test.images.paths)  # type: ignore[union-attr]


def test_layout_looks_into_nothing_for_ever(tmp_path):
    (tmp_path / "up").symlink_to(tmp_path)
    refused(tmp_path, "only one class")


# -- the order and the form of names ---------------------------------------------------------------


def test_class_names_are_in_natural_order():
    assert in_class_order(["10", "9", "1", "11"]) == ("1", "9", "10", "11")
    assert in_class_order(["10.0", "-3", "2.0", "0.5", "0.25"]) == ("-3", "0.25", "0.5", "2.0", "10.0")
    assert in_class_order(["deg90", "deg180", "deg0", "Deg7", "x"]) == ("Deg7", "deg0", "deg90", "deg180", "x")
    assert sorted(["a10b2", "a10b1", "a2", "a", "10", "b"], key=natural_key) == ["10", "a", "a2", "a10b1", "a10b2", "b"]


def test_class_folders_and_files_are_in_natural_order(tmp_path):
    write(tmp_path, *(f"{c}/{i}.png" for c in range(12) for i in (1, 2, 10)))
    found = load_folder(tmp_path)
    assert found.class_names == tuple(map(str, range(12)))
    names = [Path(path).name for path in found.train.images.paths[:3]]  # type: ignore[union-attr]
    assert names == ["1.png", "2.png", "10.png"]


def test_class_names_are_cleaned():
    decomposed = unicodedata.normalize("NFD", "Blüte")
    assert clean_name(f"  \ufeff{decomposed}\u00a0 ") == "Blüte"
    assert clean_name("two  words\t") == "two words"


def test_class_folders_of_one_name_in_two_forms_are_one_class(tmp_path):
    composed, decomposed = "Blüte", unicodedata.normalize("NFD", "Blüte")
    tree(tmp_path, "train", classes=(composed, "b"))  # type: ignore[arg-type]
    tree(tmp_path, "val", classes=(decomposed, "b"))  # type: ignore[arg-type]
    write(tmp_path, f"train/{decomposed}/9.png", "train/b /9.png")
    found = load_folder(tmp_path)
    assert found.class_names == (composed, "b") or found.class_names == ("b", composed)
    assert len(found.train) == 8 and found.evaluation is not None and len(found.evaluation) == 6
    assert sum("are one class" in note for note in found.notes) == 2


def test_class_names_that_look_alike_are_reported(tmp_path):
    write(tmp_path, "Cat/1.png", "cat/2.png", "dog/1.png", "hot dog/1.png", "hot_dog/1.png", "1/1.png", "01/1.png")
    found = load_folder(tmp_path)
    assert found.class_names == ("01", "1", "Cat", "cat", "dog", "hot dog", "hot_dog")
    (note,) = found.notes
    assert note.startswith("warning: ")
    for pair in ("'Cat' and 'cat'", "'hot dog' and 'hot_dog'", "'01' and '1'"):
        assert pair in note
    assert look_alikes(["a", "b", "ﬁn", "fin", "1", "1.0", "nan"]) == [("ﬁn", "fin"), ("1", "1.0")]


def test_class_of_another_case_in_val_is_refused_with_a_guess(tmp_path):
    tree(tmp_path, "train", classes=("cat", "dog"))  # type: ignore[arg-type]
    tree(tmp_path, "val", classes=("Cat", "dog"))  # type: ignore[arg-type]
    refused(tmp_path, "val has images of Cat", "did you mean cat?")


# -- which files are images -------------------------------------------------------------------------


def test_images_are_known_by_their_content(tmp_path):
    tree(tmp_path, ".", count=1)
    for name, kind in (("x.TIF", "TIFF"), ("x.jfif", "JPEG"), ("x.dat", "PNG"), ("x", "BMP"), ("x.jpg_large", "JPEG")):
        DIGIT.save(tmp_path / "a" / name, kind)
    (tmp_path / "a/x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (tmp_path / "a/x.json").write_text("{}")
    found = load_folder(tmp_path)
    assert np.bincount(found.train.labels).tolist() == [6, 1]
    ignored, warning = found.notes
    assert ignored.endswith("a: 1 .heic, 1 .json (pip install pillow-heif reads HEIC)")
    assert "'a' loses 1 of 7 files (1 .heic)" in warning and "pip install pillow-heif" in warning


def test_images_lost_beside_many_are_no_warning(tmp_path):
    tree(tmp_path, ".", count=10)
    (tmp_path / "a/x.mov").write_bytes(bytes(64))
    assert not [note for note in load_folder(tmp_path).notes if note.startswith("warning")]


def test_heic_is_read_where_a_decoder_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    tree(tmp_path, ".", count=1)
    DIGIT.convert("RGB").resize((64, 64)).save(tmp_path / "a/x.HEIC", "HEIF", quality=95)
    data = find_data(DataConfig(path=str(tmp_path), val_fraction=0.5), 0)
    assert sorted(data.train.images.heights.tolist() + data.evaluation.images.heights.tolist()) == [8, 8, 64]


def test_find_data_keeps_classes_too_small_to_split_in_train(tmp_path):
    write(tmp_path, *(f"a/{i}.png" for i in range(10)), "b/1.png", *(f"c/{i}.png" for i in range(3)))
    found = find_data(DataConfig(path=str(tmp_path)), 0)
    assert np.bincount(found.train.labels).tolist() == [8, 1, 2]
    assert found.notes == ("too few images to hold some out, all stay in train and none is scored: b (1)",)


# -- groups ------------------------------------------------------------------------------------------


def test_groups_of_paths_are_held_out_whole(tmp_path):
    write(tmp_path, *(f"{c}/patient{p:02}_{i}.png" for c in "ab" for p in range(10) for i in range(4)))
    found = find_data(DataConfig(path=str(tmp_path), group=r"patient(\d+)"), 0)
    assert (len(found.train), len(found.evaluation)) == (64, 16)
    assert not set(found.train.groups or ()) & set(found.evaluation.groups or ())
    assert found.evaluation.origin == r"20% held out of the images, 2 of 10 groups by patient(\d+)"


def test_groups_survive_packing(tmp_path):
    write(tmp_path / "in", *(f"{c}/patient{p:02}_{i}.png" for c in "ab" for p in range(10) for i in range(4)))
    pack(tmp_path / "in", tmp_path / "out")
    plain, packed = (find_data(DataConfig(path=str(tmp_path / name), group=r"patient\d+"), 0) for name in ("in", "out"))
    assert plain.evaluation.groups == packed.evaluation.groups
    assert plain.evaluation.origin == packed.evaluation.origin


def test_groups_that_are_trained_on_and_scored_are_a_warning(tmp_path):
    write(
        tmp_path, *(f"{s}/{c}/p{p}_{c}.png" for s, ps in (("train", "123"), ("test", "34")) for c in "ab" for p in ps)
    )
    notes = find_data(DataConfig(path=str(tmp_path), group=r"p\d"), 0).notes
    assert notes == ("warning: 1 groups of test are in train too (p3): scores flatter; move them",)


def test_groups_that_are_not_in_a_path_or_not_to_be_had_are_refused(tmp_path):
    tree(tmp_path, ".")
    refused(tmp_path, "data.group 'patient' is not found in 'a/0.png'", group="patient")
    refused(tmp_path, "data.group '(' is neither a column nor a regular expression", group="(")
    with pytest.raises(DataError, match=r"data\.group is 'x', and digits has no paths"):
        find_data(DataConfig(source="digits", group="x"), 0)
