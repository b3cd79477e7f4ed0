"""Files that change between the scan and the reading: an error that names them, never another image's label."""

from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from raytricks.config.schema import DataConfig
from raytricks.data.decode import DecodeSpec
from raytricks.data.decoding_store import FileStore
from raytricks.data.disk_store import DiskStore
from raytricks.data.loading import find_data
from raytricks.data.prepared import prepare_data
from raytricks.data.splits import DatasetSplits
from raytricks.errors import DataError

WHOLE = {"augmentation": "random_resized_crop", "image_size": 16}
SQUARE = {"augmentation": "shift", "image_size": 16, "shift_pixels": 0}


def photo(path: Path, width: int, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 20), (value,) * 3).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(8):
        photo(tmp_path / "photos" / f"class{number % 2}" / f"{number}.png", 30, 30 * number)
    return tmp_path / "photos"


def scanned(folder: Path, **settings) -> tuple[DatasetSplits, DataConfig]:
    config = DataConfig(path=str(folder), cache_dir=str(folder.parent / "cache"), channels=3, **settings)
    return find_data(config, seed=0), config


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
@pytest.mark.parametrize("shape", [WHOLE, SQUARE])
def test_a_file_that_changed_its_size_after_the_scan_is_named(folder, cache, shape):
    splits, config = scanned(folder, cache=cache, **({"shift_pixels": 0} | shape))
    photo(Path(splits.train.images.paths[1]), 50, 255)
    with pytest.raises(DataError, match=r"png: is 20 x 50 pixels, was 20 x 30 when the data was scanned"):
        store = prepare_data(splits, config).train.images
        everything = np.arange(len(store))
        store.read(everything)
        store.read_crops(everything, np.tile([0, 0, 16, 16], (len(everything), 1)), 16)
    assert not list(folder.parent.glob("cache/*.pixels"))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_a_file_that_went_after_the_scan_is_named(folder, cache):
    splits, config = scanned(folder, cache=cache, **SQUARE)
    Path(splits.train.images.paths[1]).unlink()
    with pytest.raises(DataError, match=Path(splits.train.images.paths[1]).name):
        prepare_data(splits, config).train.images.read(np.arange(6))


def test_a_file_that_came_after_the_scan_moves_no_label(folder):
    splits, config = scanned(folder, cache="memory", **SQUARE)
    before = prepare_data(splits, config).train
    photo(folder / "class0" / "00.png", 30, 99)
    after = prepare_data(splits, config).train
    everything = np.arange(len(before))
    assert np.array_equal(before.images.read(everything).pixels, after.images.read(everything).pixels)


def test_disk_store_keeps_nothing_of_files_that_changed_while_they_were_decoded(folder, tmp_path):
    class Slow(FileStore):
        def decode(self, index: int) -> np.ndarray:
            if index == 3:
                photo(Path(self.paths[0]), 30, 255)
            return super().decode(index)

    paths = sorted(str(path) for path in folder.rglob("*.png"))
    source = Slow(paths, DecodeSpec(16, square=True, channels=3))
    store = DiskStore(source, np.full(8, 16), np.full(8, 16), tmp_path / "cache")
    with pytest.raises(DataError, match="changed while they were decoded"):
        store.mapped()
    assert not list((tmp_path / "cache").glob("*.pixels"))
