"""The image tricks that a config turns on, in the training batches."""

from dataclasses import replace
import pickle

import numpy as np
import pytest
from raytricks.recipe.augmentation import SwitchedImageTricks, image_tricks
from sklearn.datasets import load_sample_images
import torch

from raytricks.config.schema import TricksConfig
from raytricks.data.augmentation import Transform
from raytricks.data.batches import TrainBatches
from raytricks.data.prepared import LabelledImages
from raytricks.data.randomness import sample_uniforms
from raytricks.data.store import UniformStore
from raytricks.errors import ConfigError
from raytricks.parts.tricks import ColorJitterConfig, RandomErasingConfig
from raytricks.tricks.color_jitter import jitter_color, pca_noise, standard_normals
from raytricks.tricks.random_erasing import erase
from raytricks.tricks.trivial_augment import trivial_augment

CPU = torch.device("cpu")
KINDS = ["none", "shift", "random_resized_crop"]
PAPER = ColorJitterConfig(brightness=0.4, saturation=0.4, hue=0.4, pca_std=0.1)
ERASING = RandomErasingConfig(probability=0.6)
SWITCHED = {
    "brightness": TricksConfig(color_jitter=ColorJitterConfig(brightness=0.4)),
    "saturation": TricksConfig(color_jitter=ColorJitterConfig(saturation=0.4)),
    "hue": TricksConfig(color_jitter=ColorJitterConfig(hue=0.4)),
    "pca_std": TricksConfig(color_jitter=ColorJitterConfig(pca_std=0.1)),
    "trivial_augment": TricksConfig(trivial_augment=True),
    "random_erasing": TricksConfig(random_erasing=ERASING),
    "all": TricksConfig(color_jitter=PAPER, trivial_augment=True, random_erasing=ERASING),
}


def pieces(count: int, side: int = 16) -> np.ndarray:
    """Cut (count, 3, side, side) uint8 pieces out of a photograph."""
    photo = load_sample_images().images[0].transpose(2, 0, 1)
    at = np.arange(count) * 5
    return np.stack([photo[:, i : i + side, 2 * i : 2 * i + side] for i in at])


def batches(tricks: TricksConfig | None, kind: str = "shift", **changes) -> TrainBatches:
    plain = TrainBatches(
        data=LabelledImages(UniformStore(pieces(50)), np.arange(50), "pieces"),
        transform=Transform(kind=kind, image_size=16, mean=(0.41,) * 3, std=(0.2,) * 3, shift_pixels=2),
        global_batch_size=16,
        rank=0,
        world_size=1,
        images_per_device=None,
        seed=3,
        device=CPU,
        with_neighbours=False,
        image_tricks=None if tricks is None else image_tricks(tricks, 3),
    )
    return replace(plain, **changes)


def by_sample(one: TrainBatches, epoch: int = 1) -> dict[int, torch.Tensor]:
    return {
        label: image
        for batch in one.epoch(epoch)
        for label, image in zip(batch.labels.tolist(), batch.inputs, strict=True)
    }


def equal_samples(a: dict[int, torch.Tensor], b: dict[int, torch.Tensor]) -> int:
    """Count the samples of both that are bit for bit equal."""
    return sum(torch.equal(a[label], b[label]) for label in a.keys() & b.keys())


def test_image_tricks_are_none_when_all_are_off():
    assert image_tricks(TricksConfig(), 3) is None
    assert image_tricks(TricksConfig(), 1) is None


@pytest.mark.parametrize("kind", KINDS)
def test_image_tricks_that_are_all_off_leave_the_batches_bit_for_bit(kind):
    plain = batches(None, kind)
    pairs = zip(plain.epoch(0), replace(plain, image_tricks=SwitchedImageTricks()).epoch(0), strict=True)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in pairs)


@pytest.mark.parametrize("name", SWITCHED)
def test_image_tricks_each_change_the_images(name):
    plain, changed = by_sample(batches(None)), by_sample(batches(SWITCHED[name]))
    assert equal_samples(plain, changed) < 0.6 * len(plain)
    assert all(image.dtype == torch.float32 and image.isfinite().all() for image in changed.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SWITCHED)
def test_image_tricks_of_a_sample_are_the_same_on_any_worker_and_in_any_batch(name, kind):
    one = batches(SWITCHED[name], kind)
    expected = by_sample(one)
    assert len(expected) == 48
    for world_size, images_per_device in [(1, 1), (1, 5), (3, 4)]:
        spread: dict[int, torch.Tensor] = {}
        for rank in range(world_size):
            part = replace(one, rank=rank, world_size=world_size, images_per_device=images_per_device)
            spread |= by_sample(part)
        assert equal_samples(spread, expected) == len(spread) == 48


def test_image_tricks_are_the_same_after_a_resume_and_differ_by_epoch_and_seed():
    one = batches(SWITCHED["all"], "none")
    full, tail = list(one.epoch(2)), list(one.epoch(2, first_step=1))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(full[1:], tail, strict=True))
    first = by_sample(one)
    assert equal_samples(first, by_sample(one, 2)) <= 1
    assert equal_samples(first, by_sample(replace(one, augmentation_seed=4))) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_image_tricks_leave_crop_shift_and_flip_as_they_were(kind):
    plain, erased = by_sample(batches(None, kind)), by_sample(batches(SWITCHED["random_erasing"], kind))
    for label, image in plain.items():
        hole = (erased[label] == 0).all(0)
        assert torch.equal(erased[label][:, ~hole], image[:, ~hole])


def test_image_tricks_switched_on_leave_the_draws_of_the_others():
    erased, all_on = by_sample(batches(SWITCHED["random_erasing"], "none")), by_sample(batches(SWITCHED["all"], "none"))
    holes = {label: (image == 0).all(0) for label, image in erased.items()}
    assert sum(hole.any().item() for hole in holes.values()) > 20
    assert all((all_on[label][:, hole] == 0).all() for label, hole in holes.items())


def test_image_tricks_go_trivial_augment_jitter_noise_normalise_erase():
    transform = Transform(kind="none", image_size=16, mean=(0.4,) * 3, std=(0.2,) * 3, horizontal_flip=False)
    data, samples, tricks = pieces(50), np.arange(50), image_tricks(SWITCHED["all"], 3)
    assert tricks is not None
    assert tricks.num_draws == 50
    ours = transform.train(UniformStore(data).read(samples), samples, 7, 1, CPU, tricks)
    draws = sample_uniforms(7, 1, samples, 50, stream=1)
    pixels = trivial_augment(torch.from_numpy(data), draws[:, 6:9]).float()
    pixels = jitter_color(pixels, draws[:, :3], brightness=0.4, saturation=0.4, hue=0.4)
    pixels = pca_noise(pixels, standard_normals(draws[:, 3:6]), 0.1)
    assert torch.equal(ours, erase(transform.normalize(pixels), draws[:, 9:], 0.6, (0.02, 0.33), (0.3, 3.3)))


def test_image_tricks_take_every_value_of_their_config():
    config = TricksConfig(
        color_jitter=ColorJitterConfig(brightness=0.1, saturation=0.2, hue=0.3, pca_std=0.4),
        trivial_augment=True,
        random_erasing=RandomErasingConfig(probability=0.5, area=(0.6, 0.7), aspect=(0.8, 0.9)),
    )
    assert image_tricks(config, 3) == SwitchedImageTricks(
        brightness=0.1,
        saturation=0.2,
        hue=0.3,
        pca_std=0.4,
        trivial=True,
        erasing_probability=0.5,
        erasing_area=(0.6, 0.7),
        erasing_aspect=(0.8, 0.9),
    )


def test_image_tricks_config_defaults_are_the_objects():
    on = image_tricks(TricksConfig(trivial_augment=True), 3)
    assert on == SwitchedImageTricks(trivial=True)


def test_image_tricks_can_be_pickled():
    tricks = image_tricks(SWITCHED["all"], 3)
    assert pickle.loads(pickle.dumps(tricks)) == tricks


@pytest.mark.parametrize("name", ["brightness", "trivial_augment", "random_erasing"])
def test_image_tricks_without_colour_work_on_gray(name):
    gray = batches(None, data=LabelledImages(UniformStore(pieces(50)[:, :1]), np.arange(50), "gray"))
    gray = replace(gray, transform=replace(gray.transform, mean=(0.4,), std=(0.2,)))
    changed = by_sample(replace(gray, image_tricks=image_tricks(SWITCHED[name], 1)))
    assert all(image.shape == (1, 16, 16) for image in changed.values())
    assert equal_samples(by_sample(gray), changed) < 0.6 * 48


@pytest.mark.parametrize("name", ["saturation", "hue", "pca_std"])
def test_image_tricks_of_colour_are_refused_on_gray(name):
    with pytest.raises(ConfigError) as caught:
        image_tricks(SWITCHED[name], 1)
    value = getattr(SWITCHED[name].color_jitter, name)
    assert str(caught.value) == (
        f"tricks.color_jitter.{name} needs colour images (3 channels), got {value} with 1; "
        f"set tricks.color_jitter.{name}=0"
    )


def test_image_tricks_of_colour_are_all_named_on_gray():
    with pytest.raises(ConfigError) as caught:
        image_tricks(SWITCHED["all"], 1)
    assert [line.split()[0].rsplit(".")[-1] for line in caught.value.problems] == ["saturation", "hue", "pca_std"]


def test_augmentation_seed_changes_the_images_and_not_their_order():
    one = batches(SWITCHED["all"])
    other = replace(one, augmentation_seed=9)
    assert [b.labels.tolist() for b in one.epoch(0)] == [b.labels.tolist() for b in other.epoch(0)]
    assert equal_samples(by_sample(one), by_sample(other)) <= 1
    assert equal_samples(by_sample(one), by_sample(replace(one, augmentation_seed=3))) == 48


def test_augmentation_seed_shared_by_two_runs_gives_equal_images_in_another_order():
    one, other = (batches(SWITCHED["all"], seed=seed, augmentation_seed=9) for seed in (1, 2))
    first, second = by_sample(one), by_sample(other)
    assert list(first) != list(second)
    assert equal_samples(first, second) == len(first.keys() & second.keys()) > 40
