"""Progressive resizing: its ramp by hand, and what training and evaluation see of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from raytricks.config import load_config
from raytricks.data.augmentation import Transform, resize_squares
from raytricks.data.batches import TrainBatches, evaluation_batches
from raytricks.data.prepared import prepare_data
from raytricks.data.store import PaddedBatch
from raytricks.errors import ConfigError
from raytricks.plan import plan_run
from raytricks.recipe.resolve import input_sides, training_sides
from raytricks.tricks.progressive_resizing import training_side

DIGITS = {"data.source": "digits", "data.image_size": 8, "model.name": "resnet8", "tricks.warmup.epochs": 0.0}


def sides(num_epochs: int, first: int, last: int, ramp: tuple[float, float]) -> list[int]:
    return [training_side(e, num_epochs=num_epochs, first=first, last=last, ramp=ramp) for e in range(num_epochs)]


def test_ramp_by_hand():
    assert sides(8, 128, 224, (0.25, 0.75)) == [128, 128, 128, 160, 192, 192, 224, 224]
    assert sides(4, 20, 28, (0.0, 0.5)) == [20, 24, 28, 28]
    assert sides(3, 28, 28, (0.0, 1.0)) == [28, 28, 28]
    assert sides(4, 100, 250, (0.5, 0.5)) == [100, 100, 250, 250]  # a jump, to a side that is no multiple of the step


@pytest.mark.parametrize("ramp", [(0.0, 1.0), (0.1, 0.6), (0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize(("first", "last"), [(96, 200), (21, 64), (4, 4)])
def test_ramp_rises_from_first_to_last_and_follows_numpys_line(first, last, ramp):
    ours = sides(40, first, last, ramp)
    line = np.interp(np.arange(40), np.array(ramp) * 40, [first, last])
    step = 32 if last >= 128 else 4
    assert ours == sorted(ours) and first <= ours[0] and ours[-1] <= last
    if ramp[0] < ramp[1]:
        assert np.abs(np.array(ours) - line).max() <= step / 2


@pytest.mark.parametrize(
    "wrong", [{"epoch": 5}, {"epoch": -1}, {"first": 0}, {"first": 40}, {"ramp": (0.5, 0.4)}, {"ramp": (0.0, 1.1)}]
)
def test_ramp_refuses_what_is_out_of_range(wrong):
    good = {"epoch": 0, "num_epochs": 5, "first": 16, "last": 32, "ramp": (0.0, 1.0)}
    with pytest.raises(ValueError, match="must be"):
        training_side(**good | wrong)


def batches_of(config, data, **changes) -> TrainBatches:
    return TrainBatches(
        data=data.train,
        transform=data.transform,
        global_batch_size=16,
        rank=0,
        world_size=1,
        images_per_device=None,
        seed=0,
        device=torch.device("cpu"),
        with_neighbours=False,
        sides=training_sides(config),
        **changes,
    )


@pytest.mark.parametrize("augmentation", ["none", "shift", "random_resized_crop"])
def test_batches_have_the_side_of_their_epoch_and_evaluation_its_own(augmentation):
    settings = {"data.augmentation": augmentation, "data.train_size": (12, 20), "data.eval_size": 24}
    plan = plan_run(None, DIGITS | settings | {"recipe.epochs": 4})
    data = prepare_data(plan.splits, plan.config.data)
    batches = batches_of(plan.config, data)
    seen = [next(iter(batches.epoch(epoch))).inputs.shape[2:] for epoch in range(4)]
    assert seen == [(side, side) for side in training_sides(plan.config)] == [(12, 12), (16, 16), (16, 16), (20, 20)]
    options = {"rank": 0, "world_size": 1, "batch_size": 8, "device": torch.device("cpu")}
    inputs, _ = next(evaluation_batches(data.evaluation, data.transform, **options))
    assert inputs.shape[2:] == (24, 24)
    assert input_sides(plan.config) == [12, 16, 20, 24]


def test_squares_of_another_side_are_resized_as_torchvision_does():
    images = torch.randint(0, 256, (5, 3, 28, 28), dtype=torch.uint8)
    theirs = F.resize(images.float(), [20, 20], antialias=True)
    torch.testing.assert_close(resize_squares(images, 20), theirs)
    assert resize_squares(images, 28) is images


def test_epochs_of_the_whole_side_are_bit_equal_to_training_without():
    plan = plan_run(None, DIGITS | {"recipe.epochs": 4, "data.augmentation": "shift", "data.shift_pixels": 1})
    risen = plan.config.model_copy(
        update={"data": plan.config.data.model_copy(update={"train_size": (4, 8), "train_size_ramp": (0.0, 0.5)})}
    )
    data = prepare_data(plan.splits, risen.data)
    ours, plain = batches_of(risen, data), replace(batches_of(plan.config, data), sides=None)
    first, second = (next(iter(b.epoch(3))).inputs for b in (ours, plain))
    assert torch.equal(first, second)
    assert next(iter(ours.epoch(0))).inputs.shape[2:] == (4, 4)


def test_evaluation_refuses_squares_that_were_not_stored_for_it():
    transform = Transform(kind="none", image_size=16, mean=(0.5,), std=(0.5,))
    canvas = PaddedBatch(torch.zeros(1, 1, 32, 32, dtype=torch.uint8), *[np.array([32])] * 2)
    with pytest.raises(ValueError, match="must be 16 x 16"):
        transform.evaluate(canvas, torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"data.train_size": (20, 12)}, r"train_size must be \[first, last\] with first <= last, got \[20, 12\]"),
        ({"data.train_size_ramp": (0.9, 0.1)}, r"train_size_ramp must be \[start, end\], rising, got"),
        ({"data.train_size": (2, 12)}, r"train_size\[0\].*must be >= 4"),
        (
            {"data.train_size": (8, 12), "tricks.distillation.teacher": "t", "tricks.distillation.cache_dir": "c"},
            "images of one size, data.train_size changes it",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, line):
    with pytest.raises(ConfigError, match=line):
        load_config(None, settings)


def test_model_that_takes_one_size_only_is_refused_before_training():
    from raytricks.api import train

    settings = {"data.train_size": (16, 32), "model.name": "torchvision:vit_b_16", "recipe.epochs": 2}
    with pytest.raises(ConfigError, match="data.train_size, data.eval_size: the model cannot take images of 16 pixels"):
        train(None, DIGITS | settings | {"data.image_size": 32, "data.channels": 3}, dry_run=True)
