"""Packed shards: any pyarrow user reads them, training from them is training from the folder, damage is named."""

from collections.abc import Callable
from dataclasses import replace
import io
import json
from pathlib import Path
import pickle
import shutil

from decoding import decode_image
import fsspec
from fsspec.implementations.memory import MemoryFileSystem
import numpy as np
from PIL import Image
import pyarrow as pa
import pytest
from sklearn.datasets import load_sample_images
import torch

from raytricks.config.schema import DataConfig
from raytricks.data.batches import TrainBatches, evaluation_batches
from raytricks.data.decode import DecodeSpec
from raytricks.data.decoding_store import ShardStore
from raytricks.data.info import verify_shards
from raytricks.data.loading import find_data, find_splits
from raytricks.data.pack import pack
from raytricks.data.prepared import PreparedData, prepare_data
from raytricks.data.shard_format import DATASET_FILE, Dataset, read_dataset
from raytricks.data.sources.shards import load_shards
from raytricks.data.splits import FileImages, ShardImages
from raytricks.data.storage import LocalStorage
from raytricks.data.store import RaggedStore, UniformStore
from raytricks.errors import DataError
from raytricks.recipe.resolve import resolve_data, stats_of

CPU = torch.device("cpu")
PHOTOS = load_sample_images().images
SPEC = DecodeSpec(32, square=False, channels=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pieces of two photographs as JPEG, PNG and WebP, of all sizes, one gray, one turned by its EXIF entry."""
    directory = tmp_path_factory.mktemp("source") / "flowers"
    rng = np.random.default_rng(0)
    for split, count in (("train", 14), ("val", 5)):
        for label, photo in enumerate(PHOTOS):
            (directory / split / f"class{label}").mkdir(parents=True)
            for i in range(count):
                width, height = rng.integers(60, 200, 2)
                piece = Image.fromarray(photo[i : i + height, i : i + width])
                exif = Image.Exif()
                if i == 3:
                    exif[0x0112] = 6
                piece = piece.convert("L") if i == 4 else piece
                piece.save(directory / split / f"class{label}" / f"{i}.{('jpg', 'png', 'webp')[i % 3]}", exif=exif)
    return directory


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory) -> Path:
    """The folder, every byte kept."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    pack(str(folder), out, short_side=0, shard_mib=1, workers=1)
    return out


@pytest.fixture
def copy(packed, tmp_path) -> Path:
    """A copy of the shards, to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def prepared(**settings) -> PreparedData:
    config = DataConfig(**settings)
    splits = find_data(config, seed=0)
    return prepare_data(splits, resolve_data(config, stats_of(splits)))


def batches_of(data: PreparedData) -> list[torch.Tensor]:
    """Return everything that an epoch trains and evaluates on, in order."""
    batches = TrainBatches(
        data=data.train,
        transform=data.transform,
        global_batch_size=8,
        rank=0,
        world_size=1,
        images_per_device=5,
        seed=0,
        device=CPU,
        with_neighbours=False,
    )
    evaluated = evaluation_batches(data.evaluation, data.transform, rank=0, world_size=1, batch_size=3, device=CPU)
    trained = [tensor for batch in batches.epoch(1) for tensor in (batch.inputs, batch.labels)]
    return trained + [tensor for pair in evaluated for tensor in pair]


def images_of(path: Path | str) -> ShardImages:
    images = load_shards(str(path)).train.images
    assert isinstance(images, ShardImages)
    return images


@pytest.mark.parametrize("cache_gib", [None, 0.0])
@pytest.mark.parametrize(
    "settings",
    [
        {"augmentation": "random_resized_crop", "image_size": 56},
        {"augmentation": "shift", "image_size": 32},
        {"augmentation": "random_resized_crop", "image_size": 28, "val_fraction": 0.25, "channels": 1},
        {"augmentation": "none", "image_size": 32, "decoder": "pil"},
    ],
)
def test_shards_train_as_the_folder_does_bit_for_bit(folder, packed, settings, cache_gib):
    settings = settings | {"cache_gib": cache_gib}
    of_folder, of_shards = (prepared(path=str(path), **settings) for path in (folder, packed))
    kind = ShardStore if cache_gib == 0 else RaggedStore | UniformStore
    assert isinstance(of_shards.train.images, kind)
    assert isinstance(of_shards.evaluation.images, kind)
    if isinstance(of_shards.train.images, ShardStore):
        assert of_shards.train.images.decoder == settings.get("decoder", "torchvision")
    assert of_shards.transform == of_folder.transform
    pairs = zip(batches_of(of_shards), batches_of(of_folder), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_shards_have_the_facts_of_the_folder(folder, packed):
    ours, theirs = (find_data(DataConfig(path=str(path)), seed=0) for path in (packed, folder))
    assert stats_of(ours) == stats_of(theirs)
    assert (ours.name, ours.class_names, ours.notes) == ("flowers", ("class0", "class1"), ())
    for one, other in ((ours.train, theirs.train), (ours.evaluation, theirs.evaluation)):
        assert one.origin == other.origin
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.images.heights, other.images.heights)
        assert np.array_equal(one.images.widths, other.images.widths)


def test_shards_are_arrow_files_that_pyarrow_reads(folder, packed):
    images, files = images_of(packed), find_splits(DataConfig(path=str(folder))).train.images
    assert isinstance(files, FileImages)
    store = ShardStore(images, SPEC)
    tables = [pa.ipc.open_file(pa.memory_map(str(packed / name))).read_all() for name in images.files]
    schema, rows = tables[0].schema, pa.concat_tables(tables).to_pylist()
    assert json.loads(schema.metadata[b"class_names"]) == ["class0", "class1"]
    assert schema.names == ["image", "label", "height", "width", "is_grayscale", "source"]
    assert len(rows) == len(store) == len(files.paths) == 28
    for index, row in enumerate(rows):
        content = Path(files.paths[index]).read_bytes()
        assert row["image"] == content == bytes(store._reader.read(index))
        assert folder / row["source"] == Path(files.paths[index])
        assert row["label"] == index // 14
        with Image.open(io.BytesIO(content)) as image:
            turned = image.getexif().get(0x0112, 1) == 6
            assert image.size == ((row["height"], row["width"]) if turned else (row["width"], row["height"]))
            assert row["is_grayscale"] == (image.mode == "L")


def test_shard_store_reads_any_order_without_a_copy_of_the_bytes(folder, packed):
    images = images_of(packed)
    store = ShardStore(images, SPEC, num_threads=2)
    paths = find_splits(DataConfig(path=str(folder))).train.images.paths  # type: ignore[union-attr]
    for indices in ([0], [27, 3], [5, 4, 5]):
        canvas = store.read(np.array(indices))
        for index, pixels, height, width in zip(indices, canvas.pixels, canvas.heights, canvas.widths, strict=True):
            assert np.array_equal(pixels[:, :height, :width], decode_image(Path(paths[index]), SPEC))
    view = store._reader.read(4)
    assert isinstance(view, memoryview)
    assert view.readonly and len(view) == images.lengths[4]
    assert np.shares_memory(np.frombuffer(view, np.uint8), np.frombuffer(store._reader.read(4), np.uint8))


def test_shard_store_travels_without_its_maps(packed):
    store = ShardStore(images_of(packed), SPEC)
    before = store.read(np.arange(28))
    content = pickle.dumps(store)
    assert len(content) < 20_000
    assert torch.equal(pickle.loads(content).read(np.arange(28)).pixels, before.pixels)


def test_shard_store_fingerprint_knows_the_images_and_their_form(packed):
    images = images_of(packed)
    stores = [
        ShardStore(images, SPEC),
        ShardStore(images, replace(SPEC, short_side=16)),
        ShardStore(images.subset(np.arange(27)), SPEC),
        ShardStore(replace(images, digests=("0" * 64,) * len(images.digests)), SPEC),
    ]
    assert len({store.fingerprint() for store in stores}) == 4
    assert pickle.loads(pickle.dumps(stores[0])).fingerprint() == stores[0].fingerprint()


class CountingFileSystem(MemoryFileSystem):
    """Files in memory at counting://, and how many bytes of each were asked for."""

    protocol = "counting"
    asked: list[tuple[str, int]] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("counting://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        content = super().cat_file(path, start=start, end=end, **options)
        self.asked.append((path.rsplit("/", 1)[-1], len(content)))
        return content


@pytest.fixture
def remote(packed) -> str:
    """The shards on a filesystem that fsspec knows."""
    fsspec.register_implementation("counting", CountingFileSystem, clobber=True)
    filesystem = CountingFileSystem()
    for path in packed.iterdir():
        filesystem.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    CountingFileSystem.asked.clear()
    return "counting://bucket"


def test_remote_shards_are_read_by_byte_ranges(remote, packed):
    images = images_of(remote)
    assert {name for name, _ in CountingFileSystem.asked} == {
        "dataset.json", "train-00000.index.arrow", "val-00000.index.arrow",
    }  # fmt: skip
    CountingFileSystem.asked.clear()
    store = ShardStore(images, SPEC)
    pixels = store.read(np.array([7, 2])).pixels
    assert sorted(CountingFileSystem.asked) == sorted([("train-00000.arrow", int(images.lengths[i])) for i in (7, 2)])
    assert torch.equal(pixels, ShardStore(images_of(packed), SPEC).read(np.array([7, 2])).pixels)


@pytest.mark.parametrize("kind", ["fsspec", "pyarrow"])
def test_remote_shards_train_as_local_ones_do(remote, packed, kind):
    url = remote if kind == "fsspec" else f"file://{packed}"
    settings = {"augmentation": "random_resized_crop", "image_size": 28, "cache_gib": 0.0}
    local, far = (prepared(path=path, **settings) for path in (str(packed), url))
    assert isinstance(far.train.images, ShardStore)
    arrived = pickle.loads(pickle.dumps(far))
    assert all(torch.equal(a, b) for a, b in zip(batches_of(local), batches_of(arrived), strict=True))


@pytest.mark.parametrize("kind", ["fsspec", "pyarrow"])
def test_remote_shards_that_are_missing_are_named(remote, copy, kind):
    url = remote if kind == "fsspec" else f"file://{copy}"
    (copy / "val-00000.arrow").unlink()
    CountingFileSystem().rm("/bucket/val-00000.arrow")
    with pytest.raises(DataError, match=r"val-00000\.arrow: is missing"):
        load_shards(url)
    with pytest.raises(DataError, match=r"nowhere: holds no dataset\.json"):
        load_shards(f"{url}/nowhere")


def test_a_url_of_no_known_kind_is_one_line():
    with pytest.raises(DataError, match="gopher://x: cannot be read .*gopher"):
        load_shards("gopher://x")


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard missing": (lambda d: (d / "train-00000.arrow").unlink(), r"train-00000\.arrow: is missing"),
    "shard truncated": (lambda d: cut(d / "val-00000.arrow", 1), r"val-00000\.arrow: holds [\d,]+ bytes, must be"),
    "shard empty": (lambda d: (d / "val-00000.arrow").write_bytes(b""), r"val-00000\.arrow: holds 0 bytes, must be"),
    "index missing": (lambda d: (d / "val-00000.index.arrow").unlink(), r"val-00000\.index\.arrow: is missing"),
    "index truncated": (lambda d: cut(d / "val-00000.index.arrow", 9), r"val-00000\.index\.arrow: holds"),
    "index changed": (lambda d: flip(d / "val-00000.index.arrow", 800), r"val-00000\.index\.arrow: damaged, its sha"),
    "no dataset.json": (lambda d: (d / DATASET_FILE).unlink(), r"holds no dataset\.json; name a directory"),
    "dataset.json empty": (lambda d: (d / DATASET_FILE).write_text(""), r"dataset\.json: damaged, or of another"),
    "dataset.json cut": (lambda d: cut(d / DATASET_FILE, 20), r"dataset\.json: damaged, or of another program"),
    "dataset.json of another": (lambda d: (d / DATASET_FILE).write_text("[1]"), r"dataset\.json: damaged, or of"),
    "a later version": (lambda d: edit(d / DATASET_FILE, version=2), r"format version 2, this raytricks reads 1"),
    "classes renamed": (lambda d: edit(d / DATASET_FILE, class_names=["a", "b"]), "its content_sha256 does not fit"),
    "no splits": (lambda d: edit(d / DATASET_FILE, splits=None), "its content_sha256 does not fit"),
    "unfinished": (
        lambda d: (d / DATASET_FILE).rename(d / "pack-state.json"),
        "packing was not finished; run the same `raytricks data pack` again",
    ),
}


@pytest.mark.parametrize("row", DAMAGE)
def test_damaged_shards_are_one_line_that_names_the_file(copy, row):
    damage, message = DAMAGE[row]
    damage(copy)
    with pytest.raises(DataError, match=message) as caught:
        find_data(DataConfig(path=str(copy), source="shards"), seed=0)
    assert str(caught.value).startswith(str(copy))
    assert "\n" not in str(caught.value)


def test_a_shard_that_is_cut_later_is_an_error_and_no_crash(copy):
    store = ShardStore(images_of(copy), SPEC)
    cut(copy / "train-00000.arrow", 5000)
    with pytest.raises(DataError, match=r"train-00000\.arrow: holds"):
        store.read(np.array([27]))


def test_a_flipped_bit_is_found_by_verification(copy):
    verify_shards(str(copy))
    for name in ("train-00000.arrow", "val-00000.arrow"):
        flip(copy / name, 5000)
    load_shards(str(copy))
    with pytest.raises(DataError) as caught:
        verify_shards(str(copy))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{copy}/{n}-00000.arrow" for n in ("train", "val")]


def test_an_image_that_cannot_be_decoded_is_named(copy):
    images = images_of(copy)
    with (copy / "train-00000.arrow").open("r+b") as file:
        file.seek(images.offsets[16])
        file.write(bytes(int(images.lengths[16])))
    with pytest.raises(DataError, match=r"train-00000\.arrow: image 16: "):
        ShardStore(images, SPEC).read(np.array([15, 16]))


@pytest.mark.parametrize("name", ["../val-00000.arrow", "/etc/passwd", "val-00000.txt", "val-0.arrow"])
def test_a_shard_name_cannot_lead_out_of_the_directory(copy, name):
    dataset = read_dataset(LocalStorage(str(copy)))
    val = dataset.splits["val"]
    shards = (replace(val.shards[0], file=name),)
    changed: Dataset = replace(dataset, splits=dataset.splits | {"val": replace(val, shards=shards)})
    (copy / DATASET_FILE).write_text(changed.to_json())
    with pytest.raises(DataError, match="damaged or changed"):
        load_shards(str(copy))
