"""Settings that the data decides, on real folders of images."""

from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from raytricks.config import load_config
from raytricks.errors import ConfigError
from raytricks.plan import plan_run
from raytricks.recipe.resolve import DatasetStats, preset_for, resolve_config, stats_of

FOUR_PER_CLASS = ["recipe.global_batch_size=2"]


def image_folder(directory: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (directory / name).mkdir(parents=True)
        for number in range(4):
            width, height = sizes[number % len(sizes)]
            shape = (height, width) if mode == "L" else (height, width, 3)
            Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(directory / name / f"{number}.png")
    return directory


def stats(side: int, num_train: int = 60_000, uniform: bool = True, gray: bool = False) -> DatasetStats:
    return DatasetStats("data", num_train, 10, side, uniform, gray)


@pytest.mark.parametrize(
    ("sizes", "mode", "size", "channels", "augmentation", "shift", "model", "stem", "width"),
    [
        ([(8, 8)], "L", 8, 1, "shift", 1, "resnet14", "small", 16),
        ([(28, 28)], "L", 28, 1, "shift", 3, "resnet14", "small", 16),
        ([(64, 64)], "RGB", 64, 3, "shift", 8, "resnet18", "small", 64),
        ([(50, 40)], "RGB", 64, 3, "shift", 8, "resnet18", "small", 64),  # not square: resized to 64
        ([(300, 260), (224, 224)], "RGB", 224, 3, "random_resized_crop", 28, "resnet50", "imagenet", 64),
    ],
)
def test_resolve_chooses_by_the_images(tmp_path, sizes, mode, size, channels, augmentation, shift, model, stem, width):
    plan = plan_run(image_folder(tmp_path / "pets", sizes, mode), FOUR_PER_CLASS)
    data, network = plan.config.data, plan.config.model
    assert (data.image_size, data.channels, data.augmentation) == (size, channels, augmentation)
    assert data.shift_pixels == shift
    assert (network.name, network.stem, network.width) == (model, stem, width)


def test_resolve_keeps_what_the_user_set(tmp_path):
    changes = ["data.image_size=32", "data.channels=3", "model.name=resnet8", "model.width=24", *FOUR_PER_CLASS]
    plan = plan_run(image_folder(tmp_path / "pets", [(8, 8)], "L"), changes)
    assert (plan.config.data.image_size, plan.config.data.channels) == (32, 3)
    assert (plan.config.model.name, plan.config.model.width, plan.config.model.stem) == ("resnet8", 24, "small")
    assert plan.sources["data.image_size"] == "command line"
    assert plan.sources["data.shift_pixels"] == "data (8x8, 6 images)"
    assert plan.config.data.shift_pixels == 4


def test_resolve_zero_shift_is_not_open():
    config = load_config(None, {"data.source": "digits", "data.shift_pixels": 0}).config
    assert resolve_config(config, stats(28))[0].data.shift_pixels == 0


@pytest.mark.parametrize("augmentation", [None, "none", "shift", "random_resized_crop"])
@pytest.mark.parametrize("side", [4, 64, 65, 519, 520, 1024])
def test_resolve_fills_in_what_a_resumed_run_may_load(side, augmentation):
    config = load_config(
        None, {"data.source": "digits", "data.image_size": side, "data.augmentation": augmentation}
    ).config
    resolved, _ = resolve_config(config, stats(28))
    assert type(config).model_validate(resolved.model_dump()) == resolved


@pytest.mark.parametrize("known", [{"data.image_size": 8, "data.augmentation": "shift"}, {"data.image_size": 8}, {}])
def test_resolve_refuses_a_shift_that_leaves_nothing_of_an_image(known):
    with pytest.raises(ConfigError, match=r"shift_pixels must be less than .* which is 8, got 8"):
        config = load_config(None, {"data.source": "digits", "data.shift_pixels": 8} | known).config
        resolve_config(config, stats(8))


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_resolve_model_of_others_has_no_stem_or_width(name):
    config = load_config(None, {"data.source": "digits", "model.name": name}).config
    resolved, sources = resolve_config(config, stats(224))
    assert (resolved.model.stem, resolved.model.width) == (None, None)
    assert not [key for key in sources if key.startswith("model.")]


def test_resolve_twice_changes_nothing():
    config = load_config(None, {"data.source": "digits"}).config
    once, _ = resolve_config(config, stats(28, gray=True))
    assert resolve_config(once, stats(224)) == (once, {})


def test_facts_of_a_folder(tmp_path):
    found = stats_of(plan_run(image_folder(tmp_path / "pets", [(50, 40)], "L"), FOUR_PER_CLASS).splits)
    assert found == DatasetStats("pets", 6, 2, 40, False, True, (3, 3))
    assert found.size_text == "about 40 px"


@pytest.mark.parametrize(
    ("side", "num_train", "epochs", "batch", "warmup", "decay"),
    [
        (28, 60_000, 30, 256, 2.0, 5e-4),
        (8, 1438, 60, 32, 5.0, 5e-4),  # 1438 // 32 = 44 steps, 1438 // 64 = 22 are too few
        (224, 5000, 120, 128, 5.0, 1e-4),
        (224, 40, 120, 16, 5.0, 1e-4),
    ],
)
def test_preset_by_size_and_number(side, num_train, epochs, batch, warmup, decay):
    assert preset_for(stats(side, num_train)) == {
        "recipe.epochs": epochs,
        "recipe.global_batch_size": batch,
        "tricks.warmup.epochs": warmup,
        "optimizer.weight_decay": decay,
    }


def test_preset_yields_to_overrides_and_names_its_source(tmp_path):
    folder = image_folder(tmp_path / "pets", [(28, 28)])
    plan = plan_run(folder, {"recipe.global_batch_size": 4, "recipe.epochs": 7})
    assert (plan.recipe.epochs, plan.recipe.global_batch_size) == (7, 4)
    assert plan.sources["recipe.epochs"] == "overrides"
    assert plan.sources["optimizer.weight_decay"] == "preset for 28x28, 6 images"


def test_preset_batch_is_never_larger_than_a_tiny_folder(tmp_path):
    """`raytricks train DIR` alone must not fail because of a batch that the user never chose."""
    plan = plan_run(image_folder(tmp_path / "pets", [(28, 28)]))
    assert plan.recipe.steps_per_epoch >= 1
    assert plan.recipe.global_batch_size == 6


@pytest.mark.parametrize("epochs", [1, 3, 5, 20, 50])
def test_preset_warmup_fits_the_epochs_that_the_user_chose(tmp_path, epochs):
    plan = plan_run(image_folder(tmp_path / "pets", [(28, 28)]), [f"recipe.epochs={epochs}"])
    assert plan.recipe.epochs == epochs
    assert plan.config.tricks.warmup.epochs == min(2.0, epochs / 10)
