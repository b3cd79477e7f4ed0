"""Prepared data: statistics, stores, channels, and the trip to a worker."""

from pathlib import Path
import pickle

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_sample_images
from timm.data import constants
import torch
from torchvision.transforms.v2 import functional as F

from raytricks.config.schema import DataConfig
from raytricks.data.batches import TrainBatches, evaluation_batches
from raytricks.data.decoding_store import FileStore
from raytricks.data.loading import find_data
from raytricks.data.prepared import (
    PreparedData,
    cache_limit_bytes,
    channel_statistics,
    prepare_data,
)
from raytricks.data.splits import ArrayImages, DatasetSplits, Split
from raytricks.data.store import RaggedStore, UniformStore
from raytricks.errors import DataError
from raytricks.recipe.resolve import resolve_data, stats_of

CPU = torch.device("cpu")
PHOTOS = load_sample_images().images


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A folder of pieces of two photographs, all of different sizes."""
    directory = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for label, photo in enumerate(PHOTOS):
        (directory / f"class{label}").mkdir()
        for i in range(10):
            width, height = rng.integers(80, 300, 2)
            piece = Image.fromarray(photo[i : i + height, i : i + width])
            piece.save(directory / f"class{label}/{i}.{'png' if i % 2 else 'jpg'}")
    return directory


def prepared(**settings) -> PreparedData:
    config = DataConfig(**settings)
    splits = find_data(config, seed=0)
    return prepare_data(splits, resolve_data(config, stats_of(splits)))


def arrays(pixels: np.ndarray, **settings) -> PreparedData:
    """Prepare decoded images that are both trained and evaluated on."""
    split = Split(np.arange(len(pixels)) % 2, ArrayImages(pixels), "all")
    splits = DatasetSplits("arrays", ("a", "b"), split, split)
    return prepare_data(splits, resolve_data(DataConfig(**settings), stats_of(splits)))


def train_inputs(data: PreparedData) -> list[torch.Tensor]:
    return [batch.inputs for batch in batches_of(data).epoch(0)]


def batches_of(data: PreparedData, sides: tuple[int, ...] | None = None) -> TrainBatches:
    return TrainBatches(
        data=data.train,
        transform=data.transform,
        global_batch_size=8,
        rank=0,
        world_size=1,
        images_per_device=5,
        seed=0,
        device=CPU,
        with_neighbours=False,
        sides=sides,
    )


def eval_inputs(data: PreparedData) -> torch.Tensor:
    parts = evaluation_batches(data.evaluation, data.transform, rank=0, world_size=1, batch_size=3, device=CPU)
    return torch.cat([inputs for inputs, _ in parts])


def test_statistics_of_digits_are_numpys():
    data = prepared(source="digits")
    assert isinstance(data.train.images, UniformStore)
    pixels = data.train.images.pixels / 255
    assert data.transform.mean == pytest.approx([pixels.mean()], abs=1e-6)
    assert data.transform.std == pytest.approx([pixels.std()], abs=1e-6)
    inputs = torch.cat([data.transform.normalize(data.train.images.read(np.arange(1438)).pixels)])
    assert inputs.mean().item() == pytest.approx(0, abs=1e-4)
    assert inputs.std().item() == pytest.approx(1, abs=1e-3)


def test_statistics_are_per_channel_of_each_images_central_square(mixed):
    data = prepared(path=str(mixed), augmentation="random_resized_crop", image_size=56)
    store = data.train.images
    assert isinstance(store, RaggedStore)
    whole = [store.read(np.array([i])).pixels[0] for i in range(len(store))]
    squares = [F.resize(F.center_crop(image, [min(image.shape[1:])] * 2), [56, 56], antialias=True) for image in whole]
    pixels = torch.stack(squares, dim=1).flatten(1).numpy() / 255
    assert data.transform.mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-3)  # an odd centre is rounded up there
    assert data.transform.std == pytest.approx(pixels.std(1).tolist(), abs=1e-3)


def test_statistics_of_constant_images_do_not_divide_by_zero():
    mean, std = channel_statistics(UniformStore(np.full((4, 1, 3, 3), 51, np.uint8)), 1)
    assert mean == (0.2,)
    assert 0 < std[0] <= 1e-3


def test_statistics_of_a_large_set_are_a_spread_sample():
    pixels = (np.arange(10_000) % 256).astype(np.uint8)[:, None, None, None]
    mean, _ = channel_statistics(UniformStore(pixels), 1)
    assert mean[0] == pytest.approx(pixels.mean() / 255, abs=0.005)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("imagenet", constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
        ("inception", constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
        ("clip", constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD),
    ],
)
def test_normalization_of_published_weights_is_timms(name, mean, std):
    colour, gray = (prepared(source="digits", normalization=name, channels=channels).transform for channels in (3, 1))
    assert (colour.mean, colour.std) == (mean, std)
    assert (gray.mean, gray.std) == (pytest.approx((sum(mean) / 3,)), pytest.approx((sum(std) / 3,)))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"augmentation": "random_resized_crop", "image_size": 56}, RaggedStore),
        ({"augmentation": "shift", "image_size": 32}, UniformStore),
        ({"augmentation": "none", "image_size": 32, "channels": 1}, UniformStore),
    ],
)
def test_files_give_the_same_batches_with_and_without_memory(mixed, settings, kind):
    cached = prepared(path=str(mixed), **settings)
    uncached = prepared(path=str(mixed), cache_gib=0.0, **settings)
    assert isinstance(cached.train.images, kind)
    assert isinstance(cached.evaluation.images, UniformStore | RaggedStore)
    assert isinstance(uncached.train.images, FileStore)
    assert isinstance(uncached.evaluation.images, FileStore)
    assert cached.transform == uncached.transform
    pairs = zip(train_inputs(cached), train_inputs(uncached), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(eval_inputs(cached), eval_inputs(uncached))


@pytest.mark.parametrize("eval_size", [8, 48])
@pytest.mark.parametrize("augmentation", ["none", "shift", "random_resized_crop"])
def test_eval_size_changes_no_training_pixel_and_no_statistic(mixed, eval_size, augmentation):
    settings = {"path": str(mixed), "image_size": 32, "augmentation": augmentation}
    plain, other = prepared(**settings), prepared(**settings, eval_size=eval_size)
    sides = [[batch.inputs for batch in batches_of(data, sides=(32,)).epoch(0)] for data in (plain, other)]
    assert all(torch.equal(a, b) for a, b in zip(*sides, strict=True))
    assert (plain.transform.mean, plain.transform.std) == (other.transform.mean, other.transform.std)
    assert eval_inputs(other).shape[2:] == (eval_size, eval_size)


@pytest.mark.parametrize("train_size", [(16, 24), (16, 48)])
def test_train_size_changes_no_evaluation_pixel(mixed, train_size):
    settings = {"path": str(mixed), "image_size": 32, "augmentation": "none", "normalization": "imagenet"}
    assert torch.equal(eval_inputs(prepared(**settings)), eval_inputs(prepared(**settings, train_size=train_size)))


def test_cache_holds_the_training_images_first(mixed):
    needs = prepared(path=str(mixed), augmentation="none", image_size=32).train.images
    assert isinstance(needs, UniformStore)
    data = prepared(path=str(mixed), augmentation="none", image_size=32, cache_gib=needs.pixels.nbytes / 2**30)
    assert isinstance(data.train.images, UniformStore)
    assert isinstance(data.evaluation.images, FileStore)


def test_cache_limit_is_a_part_of_this_machines_memory():
    assert 2**20 < cache_limit_bytes(DataConfig()) < 2**50
    assert cache_limit_bytes(DataConfig(cache_gib=1.5)) == 3 * 2**29


def test_gray_images_become_three_equal_channels():
    pixels = PHOTOS[0][None, None, :32, :32, 0].repeat(2, axis=0)
    store = arrays(pixels, channels=3).train.images
    assert isinstance(store, UniformStore)
    assert np.array_equal(store.pixels, pixels.repeat(3, axis=1))


def test_colour_images_become_pillows_gray():
    pixels = np.stack([photo[:32, :32].transpose(2, 0, 1) for photo in PHOTOS])
    store = arrays(pixels, channels=1).train.images
    assert isinstance(store, UniformStore)
    theirs = np.stack([np.asarray(Image.fromarray(photo[:32, :32]).convert("L")) for photo in PHOTOS])
    assert store.pixels.shape == (2, 1, 32, 32)
    assert np.abs(store.pixels[:, 0].astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("size", [16, 40])
def test_arrays_of_another_size_are_cut_and_resized_as_torchvision_does(size):
    pixels = np.stack([photo[:30, :50].transpose(2, 0, 1) for photo in PHOTOS])
    store = arrays(pixels, image_size=size, augmentation="none").train.images
    assert isinstance(store, UniformStore)
    square = F.center_crop(torch.from_numpy(pixels), [30, 30])
    theirs = F.resize(square, [size, size], antialias=True)
    assert np.abs(store.pixels.astype(int) - theirs.numpy()).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 120), (160, 128)])
def test_evaluation_is_torchvisions_resize_and_centre_crop(tmp_path, height, width):
    pieces = [Image.fromarray(photo[i : i + height, :width]) for photo in PHOTOS for i in (0, 50)]
    for i, piece in enumerate(pieces):
        for split in ("train", "val"):
            path = tmp_path / split / f"class{i // 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            piece.save(path)
    data = prepared(path=str(tmp_path), augmentation="random_resized_crop", image_size=56)
    ours = eval_inputs(data)
    assert ours.shape == (4, 3, 56, 56)
    for got, piece in zip(ours, pieces, strict=True):
        theirs = F.to_image(F.center_crop(F.resize(piece, [64]), [56, 56]))
        theirs = data.transform.normalize(theirs[None])[0]
        assert (got - theirs).abs().max() < 1.5 / 255 / min(data.transform.std)


def test_train_none_leaves_images_alone():
    data = arrays(np.stack([photo[:32, :32].transpose(2, 0, 1) for photo in PHOTOS] * 4), augmentation="none")
    originals = data.transform.normalize(data.train.images.read(np.arange(2)).pixels)
    for image in torch.cat(train_inputs(data)):
        assert torch.equal(image, originals[0]) or torch.equal(image, originals[1])
    assert not data.transform.horizontal_flip


@pytest.mark.parametrize("settings", [{"source": "digits"}, {"augmentation": "random_resized_crop", "image_size": 56}])
def test_prepared_data_travels_to_a_worker(mixed, settings):
    data = prepared(**({} if "source" in settings else {"path": str(mixed)}), **settings)
    arrived = through_the_object_store(data)
    assert (arrived.class_names, arrived.transform) == (data.class_names, data.transform)
    assert not arrived.train.labels.flags.writeable
    assert all(torch.equal(a, b) for a, b in zip(train_inputs(arrived), train_inputs(data), strict=True))
    assert torch.equal(eval_inputs(arrived), eval_inputs(data))


def through_the_object_store(data: PreparedData) -> PreparedData:
    """Pickle with the arrays out of band and read-only, as Ray's object store hands them over."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(content, buffers=[bytes(buffer.raw()) for buffer in buffers])


def test_a_damaged_file_is_named(tmp_path, mixed):
    for path in mixed.rglob("*.*"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "class1/4.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"class1/4\.jpg: cannot be decoded .*truncated"):
        prepared(path=str(tmp_path), augmentation="none", image_size=32)
