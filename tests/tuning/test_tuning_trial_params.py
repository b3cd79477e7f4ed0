"""The values of the trials, the images that judge them, and the files and cost of a study."""

import json
import math

import numpy as np
import pytest
import torch

from raytricks.config import flatten, load_config
from raytricks.data.loading import find_data
from raytricks.data.prepared import prepare_data
from raytricks.errors import ConfigError, DataError
from raytricks.recipe.resolve import resolve_config, stats_of
from raytricks.tuning.forecast import Speed, expected_epochs, forecast, forecast_lines, measure_speed
from raytricks.tuning.study_directory import begin, create_study_directory, is_study, open_study, write_best
from raytricks.tuning.study_task import retraining_splits, selection_splits
from raytricks.tuning.trial_params import draw_points, three_knobs

DIGITS = {"data.source": "digits", "model.name": "resnet8", "model.width": 8, "recipe.epochs": 4}
DIGITS |= {"tricks.warmup.epochs": 0.4, "recipe.global_batch_size": 32}
SPACE = {
    "tricks.label_smoothing.epsilon": {"kind": "uniform", "low": 0.02, "high": 0.3, "also": [0.0]},
    "recipe.global_batch_size": [16, 32, 64],
}


def config_of(space=SPACE, **settings):
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return load_config(None, DIGITS | dotted | {f"tune.space.{key}": value for key, value in space.items()}).config


def test_points_begin_with_the_default_and_are_the_same_each_time():
    config = config_of(tune__num_trials=12)
    points = draw_points(config, 1000)
    assert points[0] == {"tricks.label_smoothing.epsilon": 0.1, "recipe.global_batch_size": 32}
    assert len(points) == 12 and points == draw_points(config, 1000)
    assert draw_points(config_of(tune__num_trials=5), 1000) == points[:5]  # a larger budget only adds trials
    assert draw_points(config_of(tune__num_trials=12, seed=1), 1000)[1:] != points[1:]


def test_points_of_a_grid_are_all_combinations_but_the_default_twice():
    space = {"tricks.mixup.alpha": [0.0, 0.2], "recipe.global_batch_size": [16, 32, 64]}
    points = draw_points(config_of(space, tune__sampler="grid"), 1000)
    assert len(points) == 6 and points[0] == {"tricks.mixup.alpha": 0.0, "recipe.global_batch_size": 32}
    assert len({tuple(point.items()) for point in points}) == 6


def test_points_for_optuna_are_the_default_alone():
    assert len(draw_points(config_of(tune__sampler="optuna"), 1000)) == 1


@pytest.mark.parametrize(
    ("space", "settings", "images", "error", "line"),
    [
        (SPACE, {}, 40, DataError, "recipe.global_batch_size is 64, the data has 40 training images"),
        (
            {"tricks.mixup.alpha": [i / 10 for i in range(20)], "tricks.ema.decay": [i / 20 for i in range(11)]},
            {"tune__sampler": "grid"},
            1000,
            ConfigError,
            "the grid has 219 points, at most 199 are run",
        ),
    ],
)
def test_points_that_could_not_be_trained_are_refused(space, settings, images, error, line):
    with pytest.raises(error, match=line):
        draw_points(config_of(space, **settings), images)


def test_points_whose_values_do_not_suit_each_other_are_drawn_again():
    space = {"optimizer.momentum": [0.0, 0.9], "optimizer.nesterov": [True, False]}
    points = draw_points(config_of(space, tune__num_trials=40, optimizer__nesterov=False), 1000)
    pairs = {tuple(point.values()) for point in points}
    assert len(points) == 40 and pairs == {(0.0, False), (0.9, False), (0.9, True)}  # nesterov needs momentum


def test_three_knobs_are_searched_around_the_config_itself():
    config = config_of({}, recipe__base_lr=0.3)
    space = three_knobs(config, 1000)
    written = {f"tune.space.{key}": distribution.model_dump() for key, distribution in space.items()}
    assert load_config(None, DIGITS | written).config.tune.space == space  # what loading would accept
    assert space["recipe.global_batch_size"].values == (16, 32, 64)
    assert three_knobs(config, 50)["recipe.global_batch_size"].values == (16, 32, 50)  # none that leaves no step
    assert (space["recipe.base_lr"].low, space["recipe.base_lr"].high) == pytest.approx((0.1, 0.9))


def test_selection_images_are_held_out_of_train_and_the_test_images_stay_untouched():
    config = config_of()
    splits = find_data(config.data, config.seed)
    selection, retraining = selection_splits(config, splits), retraining_splits(config, splits)
    assert selection.test is None
    assert len(selection.train) + len(selection.evaluation) == len(splits.train) == len(retraining.train)
    assert len(selection.evaluation) == pytest.approx(0.1 * len(splits.train), abs=10)
    test = {image.tobytes() for image in retraining.evaluation.images.pixels}
    seen = {image.tobytes() for split in (selection.train, selection.evaluation) for image in split.images.pixels}
    assert not test & seen  # digits has no two equal images, or this would fail
    assert np.array_equal(retraining.evaluation.labels, splits.evaluation.labels)


def write_idx(folder, num_train: int, num_test: int) -> None:
    import struct

    rng = np.random.default_rng(0)
    for split, count in (("train", num_train), ("t10k", num_test)):
        pixels = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 8, 8) + pixels.tobytes())
        labels = (np.arange(count) % 3).astype(np.uint8)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())


@pytest.mark.parametrize(("val_fraction", "num_selection"), [(None, 9), (0.2, 18)])
def test_selection_with_a_test_split_uses_what_the_config_holds_out(tmp_path, val_fraction, num_selection):
    write_idx(tmp_path, 90, 12)
    config = config_of(data__source="idx", data__path=str(tmp_path), data__val_fraction=val_fraction)
    splits = find_data(config.data, config.seed)
    selection, retraining = selection_splits(config, splits), retraining_splits(config, splits)
    assert (len(selection.train), len(selection.evaluation)) == (90 - num_selection, num_selection)
    assert (len(retraining.train), len(retraining.evaluation), retraining.evaluation.origin) == (90, 12, "t10k")


def test_study_directory_goes_on_with_its_own_config_only(tmp_path):
    config = config_of(name="s", output_dir=str(tmp_path))
    study_dir = create_study_directory(config, "digits")
    assert not is_study(study_dir)
    with pytest.raises(ConfigError, match="no study"):
        open_study(study_dir)
    started_at = begin(study_dir, {"num_test": 3})
    assert begin(study_dir, {"num_test": 4}) == started_at
    assert json.loads((study_dir / "study.json").read_text())["num_test"] == 3
    assert flatten(open_study(study_dir)) == flatten(config)
    assert open_study(study_dir, ["tune.num_trials=40", "tune.budget_minutes=5.0"]).tune.num_trials == 40
    with pytest.raises(
        ConfigError, match="recipe.epochs: cannot change when a study goes on; what can: tune.num_trials"
    ):
        open_study(study_dir, ["recipe.epochs=5"])
    with pytest.raises(ConfigError, match="exists; choose another name, or go on with `raytricks tune --resume"):
        create_study_directory(config, "digits")


def test_best_yaml_loads_to_the_config_it_was_made_of(tmp_path):
    config = config_of().model_copy(update={"tune": config_of({}).tune})
    path = write_best(tmp_path, config, ["first: {line}", "", "two\nlines # and: more"])
    assert path.read_text().splitlines()[:4] == ["# first: {line}", "#", "# two", "# lines # and: more"]
    assert flatten(load_config(path).config) == flatten(config)


def test_expected_epochs_by_hand():
    assert expected_epochs(9, (), 3) == 9
    assert expected_epochs(9, (1, 3), 3) == pytest.approx(1 + 2 / 3 + 6 / 9)
    assert expected_epochs(4, (1, 3), 2) == pytest.approx(1 + 2 / 2 + 1 / 4)
    assert expected_epochs(4, (4,), 2) == 4


def test_forecast_by_hand():
    speed = Speed(train_images_per_second=100.0, evaluation_images_per_second=400.0)
    options = {"num_trials": 8, "slots": 2, "epochs": 9, "reduction_factor": 3, "num_train": 1000}
    found = forecast(speed, rungs=(1, 3), num_evaluation=200, num_retrainings=6, num_all_train=1200, **options)
    epoch_s = 1000 / 100 + 200 / 400
    assert found.trial_s == pytest.approx(9 * epoch_s)
    assert found.search_s == pytest.approx(8 * (1 + 2 / 3 + 6 / 9) / 2 * epoch_s)
    assert found.retraining_s == pytest.approx(3 * 9 * 12.0)
    slot_hours = 2 * found.total_s / 3600
    (line,) = [line for line in forecast_lines(found, speed, 2.5, uses_gpu=True) if line.startswith("cost")]
    assert f"{2.5 * slot_hours:.2f}" in line and "GPU-hours" in line


def test_speed_is_that_of_the_training_loop():
    config, _ = resolve_config(config_of(), stats_of(find_data(config_of().data, 0)))
    splits = selection_splits(config, find_data(config.data, config.seed))
    speed = measure_speed(config, prepare_data(splits, config.data), torch.device("cpu"), seconds=0.5)
    assert 10 < speed.train_images_per_second < speed.evaluation_images_per_second < 1e7
    assert math.isclose(speed.epoch_s(10, 0), 10 / speed.train_images_per_second)
