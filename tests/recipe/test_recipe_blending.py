"""Which blend a step draws: off, mixup, CutMix or either, and never in the last epochs if asked."""

import pytest
import torch

from raytricks.config import load_config
from raytricks.recipe.blending import blends_images, draw_blend
from raytricks.tricks.cutmix import draw_rectangle, kept_part
from raytricks.tricks.mixup import draw_mix_weight


def config_of(**changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(None, {"recipe.epochs": 10, "seed": 3} | dotted).config


def test_blend_is_none_when_both_are_off():
    config = config_of()
    assert not blends_images(config)
    assert draw_blend(config, 1, 0, 8) is None


def test_blend_of_mixup_is_its_draw():
    config = config_of(tricks__mixup__alpha=0.4)
    blend = draw_blend(config, 7, 0, 8)
    assert blend is not None and blend.rectangle is None
    assert blend.mix_weight == draw_mix_weight(0.4, 3, 7)


def test_blend_of_cutmix_weighs_by_the_kept_area():
    config = config_of(tricks__cutmix__alpha=1.0)
    blend = draw_blend(config, 7, 0, 8)
    assert blend is not None and blend.rectangle == draw_rectangle(1.0, 3, 7, 8, 8)
    assert blend.mix_weight == kept_part(blend.rectangle, 8, 8)
    images = torch.rand(5, 1, 8, 8)
    others = images.roll(1, 0)
    own = (blend.apply(images, others) == images).float().mean()
    assert float(own) == pytest.approx(blend.mix_weight)


def test_blend_takes_either_trick_about_half_of_the_steps():
    config = config_of(tricks__mixup__alpha=0.2, tricks__cutmix__alpha=1.0)
    blends = [draw_blend(config, step, 0, 8) for step in range(1, 1001)]
    num_cutmix = sum(blend is not None and blend.rectangle is not None for blend in blends)
    assert 440 < num_cutmix < 560  # 500 +- 4 standard errors
    assert blends == [draw_blend(config, step, 0, 8) for step in range(1, 1001)]


@pytest.mark.parametrize("trick", ["mixup", "cutmix"])
def test_blend_is_off_in_the_last_epochs(trick):
    config = config_of(**{f"tricks__{trick}__alpha": 0.5, f"tricks__{trick}__off_epochs": 3})
    is_on = [draw_blend(config, 1, epoch, 8) is not None for epoch in range(10)]
    assert is_on == [True] * 7 + [False] * 3


def test_blend_of_one_trick_goes_on_when_the_other_is_over():
    config = config_of(tricks__mixup__alpha=0.5, tricks__mixup__off_epochs=5, tricks__cutmix__alpha=1.0)
    late = [draw_blend(config, step, 9, 8) for step in range(1, 50)]
    assert all(blend is not None and blend.rectangle is not None for blend in late)
