"""What a worker trains and evaluates on, end to end: equal however it is spread."""

from dataclasses import replace
import hashlib
from pathlib import Path
import threading

from decoding import store_in_memory
import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits, load_sample_images
import torch

from raytricks.config.schema import DataConfig
from raytricks.data.augmentation import Transform
from raytricks.data.batches import TrainBatches, evaluation_batches
from raytricks.data.decode import DecodeSpec, read_header
from raytricks.data.decoding_store import FileStore
from raytricks.data.disk_store import DiskStore
from raytricks.data.prepared import LabelledImages
from raytricks.data.store import UniformStore

CPU = torch.device("cpu")
DIGITS = np.rint(load_digits().images * 255 / 16).astype(np.uint8)[:, None]
SPREADS = [(1, None), (1, 1), (1, 5), (2, None), (2, 3), (3, 4), (8, None)]


def digits(count: int) -> LabelledImages:
    return LabelledImages(UniformStore(DIGITS[:count]), np.arange(count), "digits")


def worker(data: LabelledImages, transform: Transform, **changes) -> TrainBatches:
    plain = TrainBatches(
        data=data,
        transform=transform,
        global_batch_size=16,
        rank=0,
        world_size=1,
        images_per_device=None,
        seed=3,
        device=CPU,
        with_neighbours=False,
    )
    return replace(plain, **changes)


def by_label(one: TrainBatches, world_size: int, images_per_device: int | None) -> dict[int, torch.Tensor]:
    """Return each image that any worker trains on in epoch 1, by its label."""
    images: dict[int, torch.Tensor] = {}
    for rank in range(world_size):
        part = replace(one, rank=rank, world_size=world_size, images_per_device=images_per_device)
        for batch in part.epoch(1):
            assert len(batch.inputs) == len(batch.labels)
            assert not images.keys() & set(batch.labels.tolist())
            images.update(zip(batch.labels.tolist(), batch.inputs, strict=True))
    return images


@pytest.mark.parametrize("kind", ["none", "shift", "random_resized_crop"])
def test_batches_augment_an_image_alike_on_any_worker_bit_for_bit(kind):
    transform = Transform(kind=kind, image_size=8, mean=(0.3,), std=(0.4,), shift_pixels=2)
    one = worker(digits(50), transform)
    expected = by_label(one, 1, None)
    assert len(expected) == 48
    for world_size, images_per_device in SPREADS:
        spread = by_label(one, world_size, images_per_device)
        assert spread.keys() == expected.keys()
        assert all(torch.equal(spread[label], image) for label, image in expected.items())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> LabelledImages:
    """Pieces of two photographs, each of another size, in files."""
    directory = tmp_path_factory.mktemp("mixed")
    photos = [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    paths = [str(directory / f"{i}.png") for i in range(20)]
    for i, path in enumerate(paths):
        width, height = rng.integers(60, 200, 2)
        photos[i % 2].crop((0, 0, width, height)).save(path)
    return LabelledImages(FileStore(paths, DecodeSpec(None, False, 3), num_threads=2), np.arange(20), "mixed")


def test_batches_of_mixed_sizes_augment_an_image_alike_bit_for_bit(mixed):
    transform = Transform(kind="random_resized_crop", image_size=42, mean=(0.4,) * 3, std=(0.2,) * 3)
    one = worker(mixed, transform, global_batch_size=10)
    expected = by_label(one, 1, None)
    for world_size, images_per_device in [(1, 1), (2, None), (3, 2)]:
        for label, image in by_label(one, world_size, images_per_device).items():
            assert torch.equal(image, expected[label])


@pytest.mark.parametrize("num_threads", [1, 4])
def test_batches_do_not_depend_on_the_decoding_threads(mixed, num_threads):
    store = mixed.images
    assert isinstance(store, FileStore)
    other = LabelledImages(FileStore(store.paths, store.spec, num_threads=num_threads), mixed.labels, "mixed")
    transform = Transform(kind="random_resized_crop", image_size=42, mean=(0.4,) * 3, std=(0.2,) * 3)
    pairs = zip(worker(mixed, transform).epoch(1), worker(other, transform).epoch(1), strict=True)
    assert all(torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_batches_from_memory_and_from_files_are_identical(mixed):
    store = mixed.images
    assert isinstance(store, FileStore)
    headers = [read_header(Path(path)) for path in store.paths]
    sizes = (np.array([getattr(header, side) for header in headers]) for side in ("height", "width"))
    heights, widths = store.spec.output_sizes(*sizes)
    memory = LabelledImages(store_in_memory(store.paths, store.spec, heights, widths), mixed.labels, "mixed")
    transform = Transform(kind="random_resized_crop", image_size=42, mean=(0.4,) * 3, std=(0.2,) * 3)
    pairs = zip(
        worker(mixed, transform, images_per_device=5).epoch(0),
        worker(memory, transform, images_per_device=5).epoch(0),
        strict=True,
    )
    assert all(torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_batches_bring_left_neighbours_augmented_as_they_are_elsewhere():
    transform = Transform(kind="shift", image_size=8, mean=(0.3,), std=(0.4,), shift_pixels=2)
    one = worker(digits(50), transform)
    whole = next(one.epoch(0))
    two = replace(one, rank=1, world_size=2, images_per_device=4, with_neighbours=True)
    first, second = list(two.epoch(0))[:2]
    assert (first.is_last_of_step, second.is_last_of_step) == (False, True)
    assert torch.equal(torch.cat([first.inputs[1:], second.inputs[1:]]), whole.inputs[8:])
    assert torch.equal(torch.cat([first.inputs[:-1], second.inputs[:-1]]), whole.inputs.roll(1, 0)[8:])
    assert torch.equal(first.labels[:-1], whole.labels.roll(1)[8:12])


def test_batches_from_mid_epoch_are_the_tail():
    one = worker(digits(100), Transform(kind="shift", image_size=8, mean=(0.3,), std=(0.4,), shift_pixels=2))
    full, tail = list(one.epoch(2)), list(one.epoch(2, first_step=4))
    assert len(full) == one.steps_per_epoch == 6
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(full[4:], tail, strict=True))


def test_batches_left_early_leave_no_thread(mixed):
    transform = Transform(kind="random_resized_crop", image_size=42, mean=(0.4,) * 3, std=(0.2,) * 3)
    batches = worker(mixed, transform, global_batch_size=2).epoch(0)
    next(batches)
    del batches
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("batch_size", [1, 16, 101, 500])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 150])
def test_evaluation_shows_every_image_exactly_once(world_size, batch_size):
    data = digits(101)
    transform = Transform(kind="none", image_size=8, mean=(0.0,), std=(1.0,))
    parts = [
        batch
        for rank in range(world_size)
        for batch in evaluation_batches(
            data, transform, rank=rank, world_size=world_size, batch_size=batch_size, device=CPU
        )
    ]
    assert all(0 < len(inputs) == len(labels) <= batch_size for inputs, labels in parts)
    assert torch.cat([labels for _, labels in parts]).tolist() == list(range(101))
    assert torch.equal(torch.cat([inputs for inputs, _ in parts]), torch.from_numpy(DIGITS[:101]) / 255)


def test_config_defaults_of_the_crop_are_the_transforms():
    config, transform = DataConfig(), Transform(kind="none", image_size=8, mean=(0.0,), std=(1.0,))
    assert (config.crop_scale, config.crop_aspect) == (transform.crop_scale, transform.crop_aspect)


def epoch_hash(one: TrainBatches, world_size: int, *, stopped_after: int | None = None) -> str:
    """Return the sha256 of every step's global batch of epoch 1, images and labels, put together from its workers."""
    parts = [replace(one, rank=rank, world_size=world_size) for rank in range(world_size)]
    digest, cuts = hashlib.sha256(), [0] if stopped_after is None else [0, stopped_after]
    for first, last in zip(cuts, [*cuts[1:], one.steps_per_epoch], strict=True):
        for step, pieces in enumerate(zip(*(part.epoch(1, first) for part in parts), strict=True), start=first):
            if step == last:  # killed here; a new process goes on with this step
                break
            for tensor in (torch.cat([p.inputs for p in pieces]), torch.cat([p.labels for p in pieces])):
                digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", ["shift", "random_resized_crop"])
def test_batches_have_one_hash_for_any_workers_threads_caches_and_after_a_resume(tmp_path, kind):
    paths, (photo, _) = [], load_sample_images().images
    for number in range(24):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(photo[number : number + 90, 2 * number : 2 * number + 120]).save(path, quality=90)
        paths.append(str(path))
    spec = DecodeSpec(None, square=False, channels=3) if kind == "random_resized_crop" else DecodeSpec(32, True, 3)
    sizes = spec.output_sizes(np.full(24, 90), np.full(24, 120))
    transform = Transform(kind=kind, image_size=32, mean=(0.4,) * 3, std=(0.3,) * 3, shift_pixels=4)
    stores = {f"{n or 'all'} threads": FileStore(paths, spec, num_threads=n) for n in (1, 2, 4, None)}
    stores |= {
        "memory": store_in_memory(paths, spec, *sizes),
        "disk": DiskStore(FileStore(paths, spec), *sizes, tmp_path),
    }
    hashes = {}
    for name, store in stores.items():
        one = worker(LabelledImages(store, np.arange(24), "photos"), transform, global_batch_size=8)
        for world_size in (1, 2, 4):
            hashes[name, world_size] = epoch_hash(one, world_size)
            hashes[name, world_size, "resumed"] = epoch_hash(one, world_size, stopped_after=2)
    print(f"{kind}: {len(hashes)} ways, sha256 {set(hashes.values())}")
    assert len(set(hashes.values())) == 1
    assert epoch_hash(replace(one, seed=4), 1) not in hashes.values()
