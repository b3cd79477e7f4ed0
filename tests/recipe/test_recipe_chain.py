"""The parts that a config turns on: their order and exclusions, and those that change the training batches."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
import pickle

import numpy as np
import pytest
from sklearn.datasets import load_sample_images
import torch

from raytricks.config.schema import ExperimentConfig, TricksConfig
from raytricks.config.schemas import schema_for
from raytricks.data.augmentation import Transform
from raytricks.data.batches import TrainBatches
from raytricks.data.prepared import LabelledImages
from raytricks.data.randomness import sample_uniforms, stream_of
from raytricks.data.store import UniformStore
from raytricks.errors import ConfigError
from raytricks.parts import Hooks, Part, Setting
from raytricks.parts.registry import BUILT_IN
from raytricks.parts.tricks import ColorJitterConfig, RandomErasingConfig
from raytricks.recipe.chain import Chain, ImageChain, image_chain
from raytricks.recipe.parallel_plan import plan_parallel
from raytricks.tricks.color_jitter import jitter_color, pca_noise, standard_normals
from raytricks.tricks.random_erasing import ERASING_DRAWS, erase
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


def image_tricks(tricks: TricksConfig) -> ImageChain | None:
    return image_chain(ExperimentConfig(tricks=tricks))


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
        image_tricks=None if tricks is None else image_tricks(tricks),
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
    assert image_tricks(TricksConfig()) is None


@pytest.mark.parametrize("kind", KINDS)
def test_image_tricks_that_are_all_off_leave_the_batches_bit_for_bit(kind):
    plain = batches(None, kind)
    pairs = zip(plain.epoch(0), replace(plain, image_tricks=ImageChain((), ())).epoch(0), strict=True)
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


OTHER_VALUES = TricksConfig(
    color_jitter=ColorJitterConfig(brightness=0.1, saturation=0.2, hue=0.3, pca_std=0.4),
    trivial_augment=True,
    random_erasing=RandomErasingConfig(probability=0.5, area=(0.6, 0.7), aspect=(0.8, 0.9)),
)


@pytest.mark.parametrize("config", [SWITCHED["all"], OTHER_VALUES])
def test_image_tricks_go_trivial_augment_jitter_noise_normalise_erase(config):
    """With every value of their config, each from a stream of its own."""
    transform = Transform(kind="none", image_size=16, mean=(0.4,) * 3, std=(0.2,) * 3, horizontal_flip=False)
    data, samples, tricks = pieces(50), np.arange(50), image_tricks(config)
    assert tricks is not None
    ours = transform.train(UniformStore(data).read(samples), samples, 7, 1, CPU, tricks)

    def draws(name: str, num_draws: int) -> np.ndarray:
        return sample_uniforms(7, 1, samples, num_draws, stream_of(name))

    jitter, erasing = config.color_jitter, config.random_erasing
    of_color = draws("color_jitter", 6)
    pixels = trivial_augment(torch.from_numpy(data), draws("trivial_augment", 3)).float()
    pixels = jitter_color(pixels, of_color[:, :3], jitter.brightness, jitter.saturation, jitter.hue)
    inputs = transform.normalize(pca_noise(pixels, standard_normals(of_color[:, 3:]), jitter.pca_std))
    erased = erase(inputs, draws("random_erasing", ERASING_DRAWS), erasing.probability, erasing.area, erasing.aspect)
    assert torch.equal(ours, erased) and not torch.equal(erased, inputs)


def test_image_tricks_describe_what_the_images_depend_on():
    all_on, others = image_tricks(SWITCHED["all"]), image_tricks(OTHER_VALUES)
    trivial = image_tricks(TricksConfig(trivial_augment=True))
    assert all_on is not None and others is not None and trivial is not None
    assert list(all_on.describe()) == ["trivial_augment", "color_jitter", "random_erasing"]
    assert trivial.describe() == {"trivial_augment": "True"}
    assert [name for name, value in others.describe().items() if value != all_on.describe()[name]] == [
        "color_jitter",
        "random_erasing",
    ]
    again = image_tricks(SWITCHED["all"].model_copy(deep=True))
    assert again is not None and again.describe() == all_on.describe()


def test_image_tricks_can_be_pickled():
    tricks = image_tricks(SWITCHED["all"])
    assert tricks is not None
    copy = pickle.loads(pickle.dumps(tricks))
    assert copy.describe() == tricks.describe()
    expected, found = by_sample(batches(SWITCHED["all"])), by_sample(batches(None, image_tricks=copy))
    assert equal_samples(expected, found) == 48


def plan(tricks: TricksConfig, channels: int) -> None:
    config = ExperimentConfig.model_validate({"tricks": tricks, "data": {"channels": channels}})
    plan_parallel(config, num_workers=1, device_type="cpu")


@pytest.mark.parametrize("name", ["brightness", "trivial_augment", "random_erasing"])
def test_image_tricks_without_colour_work_on_gray(name):
    gray = batches(None, data=LabelledImages(UniformStore(pieces(50)[:, :1]), np.arange(50), "gray"))
    gray = replace(gray, transform=replace(gray.transform, mean=(0.4,), std=(0.2,)))
    changed = by_sample(replace(gray, image_tricks=image_tricks(SWITCHED[name])))
    plan(SWITCHED[name], channels=1)  # not refused
    assert all(image.shape == (1, 16, 16) for image in changed.values())
    assert equal_samples(by_sample(gray), changed) < 0.6 * 48


@pytest.mark.parametrize("name", ["saturation", "hue", "pca_std"])
def test_image_tricks_of_colour_are_refused_on_gray(name):
    plan(SWITCHED[name], channels=3)
    with pytest.raises(ConfigError) as caught:
        plan(SWITCHED[name], channels=1)
    value = getattr(SWITCHED[name].color_jitter, name)
    assert str(caught.value) == (
        f"tricks.color_jitter.{name} needs colour images (3 channels), got {value} with 1; "
        f"set tricks.color_jitter.{name}=0"
    )


def test_image_tricks_of_colour_are_all_named_on_gray():
    with pytest.raises(ConfigError) as caught:
        plan(SWITCHED["all"], channels=1)
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


# -- parts beside one another --------------------------------------------------------------


def switch(name: str, code: Hooks | None = None, **row) -> Part:
    """A part of the user's own with one switch, `tricks.NAME`."""
    setting = Setting(annotation=bool, default=False, doc="A switch.")
    values = {"settings": setting, "on": {"": True}, "off": {"": False}} | row
    return Part(kind="trick", name=name, title=name, source="-", code=code, **values)


def config_with(*brought: Part, **tricks: object) -> ExperimentConfig:
    return schema_for(brought=brought).model_validate({"tricks": {part.name: True for part in brought} | tricks})


IMAGE_PARTS: dict[str, dict[str, object]] = {
    "trivial_augment": {"trivial_augment": True},
    "color_jitter": {"color_jitter": PAPER},
    "random_erasing": {"random_erasing": ERASING},
    "darker": {"darker": True},
    "noisy": {"noisy": True},
}
DARKER = switch("darker", Hooks(num_draws=2, pixels=lambda images, draws: images))
NOISY = switch("noisy", Hooks(num_draws=1, inputs=lambda images, draws: images))


def recorder(drawn: list[tuple[int, int]]) -> Callable[[int, int], np.ndarray]:
    """Draw and note what was asked for."""

    def draw(num_draws: int, stream: int) -> np.ndarray:
        drawn.append((num_draws, stream))
        return sample_uniforms(3, 1, np.arange(4), num_draws, stream)

    return draw


def test_image_part_added_or_removed_leaves_the_draws_of_the_others():
    expected = {
        "trivial_augment": (3, stream_of("trivial_augment")),
        "color_jitter": (6, stream_of("color_jitter")),
        "random_erasing": (ERASING_DRAWS, stream_of("random_erasing")),
        "darker": (2, stream_of("darker")),
        "noisy": (1, stream_of("noisy")),
    }
    images = torch.from_numpy(pieces(4))
    for count in range(1, len(IMAGE_PARTS) + 1):
        for names in combinations(IMAGE_PARTS, count):
            settings = {"darker": False, "noisy": False}
            for name in names:
                settings |= IMAGE_PARTS[name]
            chain = image_chain(config_with(DARKER, NOISY, **settings))
            assert chain is not None
            drawn: list[tuple[int, int]] = []
            chain.on_inputs(chain.on_pixels(images, recorder(drawn)).float(), recorder(drawn))
            assert sorted(drawn) == sorted(expected[name] for name in names), names


def test_image_part_of_ones_own_leaves_the_images_of_the_others():
    """Bit for bit, though it draws before them."""
    first = switch("first", Hooks(num_draws=7, pixels=lambda images, draws: images))
    alone = by_sample(batches(SWITCHED["all"]))
    config = config_with(first, trivial_augment=True, color_jitter=PAPER, random_erasing=ERASING)
    beside = by_sample(batches(None, image_tricks=image_chain(config)))
    assert equal_samples(alone, beside) == 48


def test_streams_of_the_parts_differ_from_each_other_and_from_the_crops():
    names = [row.name for row in BUILT_IN]
    streams = {stream_of(name) for name in names}
    assert len(streams) == len(names)
    assert 0 not in streams and all(0 < stream < 2**32 for stream in streams)
    draws = [sample_uniforms(3, 1, np.arange(1), 1, stream).item() for stream in (0, *streams)]
    assert len(set(draws)) == len(draws)


def test_chain_calls_a_slot_in_the_order_of_the_rows_unless_a_part_asks_otherwise():
    seen: list[str] = []

    def note(name: str) -> Hooks:
        return Hooks(pixels=lambda images: seen.append(name) or images)

    early = switch("early", note("early"), after=("late",))
    late, last = switch("late", note("late")), switch("last", note("last"), after=("nothing_that_is_on",))
    config = config_with(early, late, last, trivial_augment=True)
    names = [call.part.name for call in Chain(config).calls("pixels")]
    assert names == ["trivial_augment", "late", "early", "last"]
    chain = image_chain(config)
    assert chain is not None
    chain.on_pixels(torch.from_numpy(pieces(4)), recorder([]))
    assert seen == ["late", "early", "last"]


def test_chain_refuses_parts_that_ask_to_come_after_one_another():
    a, b = switch("first", after=("second",)), switch("second", after=("first",))
    with pytest.raises(ConfigError) as caught:
        Chain(config_with(a, b))
    assert str(caught.value) == "parts: first, second ask to come after one another; leave one `after` out"
    Chain(config_with(a, b, second=False))  # a part that is off is waited for by none


def test_chain_refuses_parts_that_exclude_each_other():
    part = switch("whitening", conflicts=("color_jitter", "random_erasing"))
    with pytest.raises(ConfigError) as caught:
        Chain(config_with(part, color_jitter=PAPER, random_erasing=ERASING))
    assert caught.value.problems == [
        "tricks.whitening and color_jitter cannot be on together; turn one of them off",
        "tricks.whitening and random_erasing cannot be on together; turn one of them off",
    ]
    Chain(config_with(part))
    Chain(config_with(part, whitening=False, color_jitter=PAPER))


def test_chain_gives_a_part_its_settings_and_of_the_offered_what_it_names():
    def factor(settings: float, point: object) -> float:
        return settings * point  # type: ignore[operator]

    halved = switch(
        "halved",
        Hooks(lr_factor=factor),
        settings=Setting(annotation=float, default=1.0, doc="A factor."),
        on={"": 0.5},
        off={"": 1.0},
    )
    (call,) = [c for c in Chain(config_with(halved, halved=0.25)).calls("lr_factor") if c.part is halved]
    assert call(point=8, what_another_version_offers=None) == 2.0
    config = config_with(halved, halved=1.0)
    assert all(c.part is not halved for c in Chain(config).calls("lr_factor"))  # off


def test_chain_collects_the_problems_of_all_parts():
    one = switch("one", Hooks(problems=lambda channels: [f"one: {channels} channels"]))
    two = switch("two", Hooks(problems=lambda num_workers, device_type: [f"two: {num_workers} on {device_type}"] * 2))
    with pytest.raises(ConfigError) as caught:
        plan_parallel(config_with(one, two), num_workers=2, device_type="cpu")
    assert caught.value.problems == ["one: 3 channels", "two: 2 on cpu", "two: 2 on cpu"]
