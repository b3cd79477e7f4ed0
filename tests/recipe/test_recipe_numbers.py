"""Batch, steps and learning rate: hand-computed, and the hardware has no say."""

import pytest

from raytricks.config import load_config
from raytricks.errors import DataError
from raytricks.recipe.recipe import make_recipe


def recipe_of(num_images: int, **changes: object):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return make_recipe(load_config(None, {"data.source": "digits"} | dotted).config, num_images)


def test_recipe_counts_steps_by_hand():
    recipe = recipe_of(1000, recipe__epochs=10, recipe__global_batch_size=64, tricks__warmup__epochs=2.5)
    assert recipe.steps_per_epoch == 15  # 1000 // 64; 40 images wait for another epoch
    assert recipe.total_steps == 150
    assert recipe.warmup_steps == 38  # round(2.5 * 15)


@pytest.mark.parametrize(
    ("scaling", "batch", "peak"),
    [("linear", 256, 0.1), ("linear", 1024, 0.4), ("linear", 64, 0.025), ("sqrt", 1024, 0.2), ("none", 1024, 0.1)],
)
def test_recipe_peak_lr_follows_the_global_batch(scaling, batch, peak):
    recipe = recipe_of(5000, recipe__global_batch_size=batch, tricks__lr_scaling=scaling)
    assert recipe.peak_lr == pytest.approx(peak)


@pytest.mark.parametrize(
    "hardware", [{"workers": 1}, {"workers": 8}, {"hardware__images_per_device": 7}, {"hardware__precision": "fp16"}]
)
def test_recipe_ignores_workers_and_accumulation(hardware):
    assert recipe_of(1000, **hardware) == recipe_of(1000)


def test_recipe_lr_landmarks_by_hand():
    recipe = recipe_of(512, recipe__epochs=10, recipe__global_batch_size=256, tricks__warmup__epochs=5.0)
    assert (recipe.warmup_steps, recipe.total_steps) == (10, 20)
    assert recipe.lr(1) == pytest.approx(0.01)
    assert recipe.lr(5) == pytest.approx(0.05)
    assert recipe.lr(10) == recipe.lr(11) == pytest.approx(0.1)
    assert recipe.lr(16) == pytest.approx(0.05)  # half of the decay is made
    assert 0 < recipe.lr(20) < 0.003
    assert recipe.as_dict()["lr_at"] == {"first": recipe.lr(1), "peak": recipe.lr(10), "last": recipe.lr(20)}


def test_recipe_without_warmup_starts_at_the_peak():
    recipe = recipe_of(512, tricks__warmup__epochs=0.0)
    assert recipe.lr(1) == recipe.peak_lr == recipe.as_dict()["lr_at"]["peak"]


def test_recipe_batch_of_the_whole_data_is_one_step():
    assert recipe_of(256, recipe__global_batch_size=256).steps_per_epoch == 1


def test_recipe_batch_larger_than_the_data_is_refused():
    with pytest.raises(DataError, match="global_batch_size is 256, the data has 255 .* use at most 255"):
        recipe_of(255, recipe__global_batch_size=256)
