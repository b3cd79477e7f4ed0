"""IDX files, plain and gzipped, right and wrong; digits; Fashion-MNIST where it is installed."""

import gzip
from pathlib import Path
import struct
import tracemalloc

import numpy as np
import pytest
from sklearn.datasets import load_digits

from raytricks.config.schema import DataConfig
from raytricks.data.loading import find_data
from raytricks.data.sources import idx
from raytricks.errors import DataError

IMAGES = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
LABELS = load_digits().target.astype(np.uint8)
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(directory: Path, *, zipped: bool = False, train: int = 100, test: int = 40) -> Path:
    """Write the digits as the four files of an IDX data set."""
    directory.mkdir(exist_ok=True)
    rows = {"train": slice(0, train), "t10k": slice(train, train + test)}
    for split, chosen in rows.items():
        for kind, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
            content = idx_bytes(array[chosen])
            path = directory / f"{split}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return directory


def error_of(directory: Path, **config) -> str:
    with pytest.raises(DataError) as caught:
        find_data(DataConfig(path=str(directory), **config), seed=0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("source", ["auto", "idx"])
def test_idx_files_give_back_what_was_written(tmp_path, zipped, source):
    splits = find_data(DataConfig(source=source, path=str(write(tmp_path / "mine", zipped=zipped))), seed=0)
    assert (splits.name, splits.class_names, splits.test) == ("mine", tuple("0123456789"), None)
    for split, rows, origin in (
        (splits.train, slice(0, 100), "train"),
        (splits.evaluation, slice(100, 140), "t10k"),
    ):
        assert np.array_equal(split.images.pixels, IMAGES[rows, None])
        assert np.array_equal(split.labels, LABELS[rows])
        assert (split.labels.dtype, split.origin) == (np.int64, origin)
        assert split.images.is_grayscale
        assert (split.images.heights == 8).all()


def test_idx_test_split_is_kept_for_the_end_when_a_part_is_held_out(tmp_path):
    splits = find_data(DataConfig(path=str(write(tmp_path)), val_fraction=0.2), seed=0)
    assert splits.test is not None
    assert (len(splits.train), len(splits.evaluation), len(splits.test)) == (80, 20, 40)


@pytest.mark.parametrize("missing", [TRAIN_LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_idx_names_the_missing_file(tmp_path, missing):
    (write(tmp_path) / missing).unlink()
    assert error_of(tmp_path) == (f"{tmp_path}: {missing} (or {missing}.gz) is missing; all four IDX files are needed")


def test_idx_names_the_missing_directory(tmp_path):
    assert error_of(tmp_path / "no", source="idx").startswith(f"{tmp_path / 'no'}: {TRAIN_IMAGES} ")


def damage(name: str, change, *, zipped: bool = False):
    return pytest.param(name + (".gz" if zipped else ""), change, zipped, id=f"{name}-{change.__doc__}")


def cut(content: bytes) -> bytes:
    """Cut"""
    return content[:-50]


def cut_in_header(content: bytes) -> bytes:
    """CutInHeader"""
    return content[:9]


def lengthened(content: bytes) -> bytes:
    """Lengthened"""
    return content + b"x"


def emptied(content: bytes) -> bytes:
    """Emptied"""
    return b""


def html(content: bytes) -> bytes:
    """Html"""
    return b"<html>" + content


def float_typed(content: bytes) -> bytes:
    """FloatTyped"""
    return content[:2] + b"\x0d" + content[3:]


def without_images(content: bytes) -> bytes:
    """WithoutImages"""
    return content[:4] + bytes(4) + content[8:16]


def overflowing(content: bytes) -> bytes:
    """Overflowing: 2**31 * 2**31 * 4 is 0 in 64 bits"""
    return content[:4] + struct.pack(">3I", 2**31, 2**31, 4)


def scrambled(content: bytes) -> bytes:
    """Scrambled"""
    return content[:40] + bytes(b ^ 0xFF for b in content[40:80]) + content[80:]


@pytest.mark.parametrize(
    ("name", "change", "zipped"),
    [
        damage(TRAIN_IMAGES, cut),
        damage(TRAIN_LABELS, cut),
        damage(TRAIN_IMAGES, cut_in_header),
        damage(TRAIN_IMAGES, lengthened),
        damage(TRAIN_LABELS, emptied),
        damage(TRAIN_IMAGES, html),
        damage(TRAIN_IMAGES, float_typed),
        damage(TRAIN_IMAGES, without_images),
        damage(TRAIN_IMAGES, overflowing),
        damage(TRAIN_IMAGES, cut, zipped=True),
        damage(TRAIN_LABELS, html, zipped=True),
        damage(TRAIN_IMAGES, scrambled, zipped=True),
    ],
)
def test_idx_names_a_damaged_file(tmp_path, name, change, zipped):
    path = write(tmp_path, zipped=zipped) / name
    path.write_bytes(change(path.read_bytes()))
    message = error_of(tmp_path)
    assert message.startswith(f"{path}: ")
    assert "fetch" in message


def test_idx_with_the_labels_in_place_of_the_images(tmp_path):
    (write(tmp_path) / TRAIN_IMAGES).write_bytes((tmp_path / TRAIN_LABELS).read_bytes())
    assert "not an IDX file of unsigned bytes with 3 dimensions" in error_of(tmp_path)


def test_idx_counts_must_agree(tmp_path):
    (write(tmp_path) / TRAIN_LABELS).write_bytes(idx_bytes(LABELS[:99]))
    message = error_of(tmp_path)
    assert f"{TRAIN_IMAGES} holds 100 images" in message
    assert f"{TRAIN_LABELS} 99 labels; they must be equal" in message


def test_idx_test_labels_must_be_in_the_training_range(tmp_path):
    (write(tmp_path) / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[100:140] + 1))
    assert "a test label is 10, the training labels end at 9; the files do not belong" in error_of(tmp_path)


def test_idx_needs_two_classes(tmp_path):
    (write(tmp_path) / TRAIN_LABELS).write_bytes(idx_bytes(np.zeros(100, np.uint8)))
    assert "at least 2 classes are needed" in error_of(tmp_path)


def test_idx_takes_fashion_names_by_the_directory(tmp_path):
    config = DataConfig(path=str(write(tmp_path / "FashionSmall")))
    assert find_data(config, seed=0).class_names == idx.FASHION_MNIST_CLASSES


def test_idx_takes_no_fashion_names_for_fewer_classes(tmp_path):
    directory = write(tmp_path / "fashion")
    for split, rows in (("train", slice(0, 100)), ("t10k", slice(100, 140))):
        (directory / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[rows] % 3))
    assert find_data(DataConfig(path=str(directory)), seed=0).class_names == ("0", "1", "2")


def test_idx_takes_no_fashion_names_for_more_classes(tmp_path):
    directory = write(tmp_path / "fashion")
    for split, rows in (("train", slice(0, 100)), ("t10k", slice(100, 140))):
        (directory / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[rows] * 3))
    assert find_data(DataConfig(path=str(directory)), seed=0).num_classes == 28


def test_fashion_mnist_is_refused_with_the_remedies_when_it_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "FASHION_MNIST_DIRECTORIES", (tmp_path / "a", tmp_path / "b"))
    with pytest.raises(DataError) as caught:
        find_data(DataConfig(source="fashion_mnist"), seed=0)
    for mention in (tmp_path / "a", tmp_path / "b", "dataset-fashion-mnist", "data.path", "data.download=true"):
        assert str(mention) in str(caught.value)
    assert str(tmp_path / "c") in error_of(tmp_path / "c", source="fashion_mnist", download=True)


def test_fashion_mnist_of_the_system():
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    splits = find_data(DataConfig(source="fashion_mnist"), seed=0)
    assert (splits.name, splits.num_classes) == ("fashion_mnist", 10)
    assert np.bincount(splits.train.labels).tolist() == [6000] * 10
    assert np.bincount(splits.evaluation.labels).tolist() == [1000] * 10
    assert splits.train.images.pixels.shape == (60000, 1, 28, 28)
    assert splits.train.images.pixels.mean() / 255 == pytest.approx(0.2860, abs=1e-4)  # widely published


def test_digits_are_scikit_learns():
    splits = find_data(DataConfig(source="digits"), seed=0)
    assert (splits.name, splits.class_names) == ("digits", tuple("0123456789"))
    assert (len(splits.train), len(splits.evaluation), splits.test) == (1438, 359, None)
    both = np.concatenate([splits.train.images.pixels, splits.evaluation.images.pixels])
    assert (both.dtype, both.shape, both.min(), both.max()) == (np.uint8, (1797, 1, 8, 8), 0, 255)
    assert np.array_equal(np.sort(both.sum((1, 2, 3))), np.sort(IMAGES.sum((1, 2))))


def test_idx_is_read_no_further_than_its_header_says(tmp_path):
    """A small gzip file may unpack to any number of bytes."""
    write(tmp_path, zipped=True)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes()) + bytes(64 * 2**20)))
    tracemalloc.start()
    line = error_of(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "its header says (100, 8, 8); fetch it again" in line and peak < 16 * 2**20


def test_fashion_mnist_download_that_was_interrupted_is_not_taken_for_the_data(tmp_path, monkeypatch):
    write(tmp_path / "raw")
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte").unlink()
    monkeypatch.setattr(idx, "FASHION_MNIST_DIRECTORIES", (tmp_path / "raw",))
    downloads = []
    monkeypatch.setattr(idx, "_download_fashion_mnist", lambda: downloads.append(1) or tmp_path / "raw")
    idx.find_fashion_mnist(None, download=True)
    assert downloads == [1]
