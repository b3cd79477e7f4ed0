"""Which blend a step draws: off, mixup, CutMix or either, and never in the last epochs if asked."""

import pytest
import torch

from raytricks.config.schemas import schema_for
from raytricks.data.randomness import step_generator
from raytricks.parts import Hooks, Part, Setting
from raytricks.parts.hooks import Blend
from raytricks.recipe.recipe import make_recipe
from raytricks.training.phases import share_phases
from raytricks.training.state import build_state
from raytricks.training.step import Stepper
from raytricks.training.worker import Worker
from raytricks.tricks.cutmix import draw_rectangle, kept_part
from raytricks.tricks.mixup import draw_mix_weight

SIDE = 8  # of the digits
SHORT = {"recipe__global_batch_size": 16, "recipe__epochs": 10, "num_train": 16}  # a step is an epoch
LONG = {"recipe__global_batch_size": 4, "recipe__epochs": 10, "num_train": 400, "model__norm": "group"}
SEED = 3


def draws_of(config, num_images: int, worker: Worker | None = None) -> list[Blend | None]:
    """Return the blend of every step of a run, as its stepper draws it."""
    worker = worker or Worker()
    recipe = make_recipe(config, num_images)
    state = build_state(config, class_names=[str(n) for n in range(10)], worker=Worker(), precision="fp32")
    stepper = Stepper(config, recipe, state, worker, "fp32")
    return [stepper._draw_blend(step) for step in range(1, recipe.total_steps + 1)]


def blends_of(job) -> list[Blend | None]:
    return draws_of(job.config, len(job.data.train))


def pasted(blend: Blend) -> torch.Tensor:
    """Return what part of each pixel comes from the neighbour."""
    return blend.apply(torch.zeros(1, 1, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE))[0, 0]


def is_cutmix(blend: Blend) -> bool:
    return set(pasted(blend).flatten().tolist()) <= {0.0, 1.0} and 0 < blend.mix_weight < 1


def needs_neighbours(job) -> bool:
    return share_phases(job.config, job.data, Worker())[0].batches.with_neighbours


def test_blend_is_none_when_both_are_off(make_job):
    job = make_job(**SHORT)
    assert not needs_neighbours(job)
    assert blends_of(job) == [None] * 10


def test_blend_of_mixup_is_its_draw(make_job):
    job = make_job(**SHORT, seed=SEED, tricks__mixup__alpha=0.4)
    assert needs_neighbours(job)
    for step, blend in enumerate(blends_of(job), start=1):
        assert blend is not None
        assert blend.mix_weight == draw_mix_weight(0.4, step_generator(SEED, step, "mixup"))
        torch.testing.assert_close(pasted(blend), torch.full((SIDE, SIDE), 1 - blend.mix_weight))


def test_blend_of_cutmix_weighs_by_the_kept_area(make_job):
    job = make_job(**SHORT, seed=SEED, tricks__cutmix__alpha=1.0)
    assert needs_neighbours(job)
    for step, blend in enumerate(blends_of(job), start=1):
        rectangle = draw_rectangle(1.0, step_generator(SEED, step, "cutmix"), SIDE, SIDE)
        expected = torch.zeros(SIDE, SIDE)
        expected[rectangle.top : rectangle.bottom, rectangle.left : rectangle.right] = 1
        assert blend is not None and torch.equal(pasted(blend), expected)
        assert blend.mix_weight == kept_part(rectangle, SIDE, SIDE)
        images = torch.rand(5, 1, SIDE, SIDE)
        others = images.roll(1, 0)
        own = (blend.apply(images, others) == images).float().mean()
        assert float(own) == pytest.approx(blend.mix_weight)


def test_blend_of_cutmix_lies_in_the_small_images_of_progressive_resizing(make_job):
    job = make_job(
        **SHORT, tricks__cutmix__alpha=1.0, data__train_size=(4, 8), data__train_size_ramp=(0.0, 1.0), seed=SEED
    )
    first = blends_of(job)[0]
    rectangle = draw_rectangle(1.0, step_generator(SEED, 1, "cutmix"), 4, 4)
    assert first is not None and first.mix_weight == kept_part(rectangle, 4, 4)


def test_blend_takes_either_trick_about_half_of_the_steps(make_job):
    job = make_job(**LONG, tricks__mixup__alpha=0.2, tricks__cutmix__alpha=1.0)
    blends = [blend for blend in blends_of(job) if blend is not None]
    alone = {
        name: make_job(name, **LONG, **{f"tricks__{name}__alpha": alpha})
        for name, alpha in (("mixup", 0.2), ("cutmix", 1.0))
    }
    weights = {name: [blend.mix_weight for blend in blends_of(job) if blend] for name, job in alone.items()}
    assert len(blends) == 1000
    drawn = [blend.mix_weight for blend in blends]
    num_cutmix = sum(mine == theirs for mine, theirs in zip(drawn, weights["cutmix"], strict=True))
    num_mixup = sum(mine == theirs for mine, theirs in zip(drawn, weights["mixup"], strict=True))
    assert num_cutmix + num_mixup == 1000  # each keeps the draws that it has alone
    assert 440 < num_cutmix < 560  # 500 +- 4 standard errors


def test_blend_is_the_same_on_every_worker_and_when_it_is_drawn_again(make_job):
    job = make_job(**SHORT, tricks__mixup__alpha=0.2, tricks__cutmix__alpha=1.0)

    def weights(worker: Worker) -> list[float | None]:
        return [blend and blend.mix_weight for blend in draws_of(job.config, len(job.data.train), worker)]

    first = weights(Worker())
    assert first == weights(Worker()) == weights(Worker(rank=1, world_size=2))
    other = make_job("other", **SHORT, tricks__mixup__alpha=0.2, tricks__cutmix__alpha=1.0, seed=4)
    assert all(mine != (theirs and theirs.mix_weight) for mine, theirs in zip(first, blends_of(other), strict=True))


@pytest.mark.parametrize("trick", ["mixup", "cutmix"])
def test_blend_is_off_in_the_last_epochs(make_job, trick):
    job = make_job(**SHORT, **{f"tricks__{trick}__alpha": 0.5, f"tricks__{trick}__off_epochs": 3})
    assert [blend is not None for blend in blends_of(job)] == [True] * 7 + [False] * 3


def test_blend_of_one_trick_goes_on_when_the_other_is_over(make_job):
    job = make_job(**LONG, tricks__mixup__alpha=0.5, tricks__mixup__off_epochs=5, tricks__cutmix__alpha=1.0)
    late = blends_of(job)[500:]
    assert len(late) == 500
    assert all(blend is not None and pasted(blend).frac().sum() == 0 for blend in late)


def test_blend_is_one_of_three_by_chance(make_job):
    """A part of one's own takes its share of the steps."""
    part = Part(
        kind="trick",
        name="halves",
        title="halves",
        source="-",
        code=Hooks(blend=lambda: Blend(0.5, lambda inputs, neighbours: (inputs + neighbours) / 2)),
        settings=Setting(annotation=bool, default=False, doc="A switch."),
        on={"": True},
        off={"": False},
    )
    job = make_job(**LONG, tricks__mixup__alpha=0.2, tricks__cutmix__alpha=1.0)
    tree = job.config.model_dump()
    tree["tricks"]["halves"] = True
    config = schema_for(brought=[part]).model_validate(tree)
    weights = [blend.mix_weight for blend in draws_of(config, 400) if blend is not None]
    assert len(weights) == 1000
    num_cutmix_halves = 20  # CutMix too may keep half of 64 pixels, seldom
    assert 273 < weights.count(0.5) < 393 + num_cutmix_halves  # 333 +- 4 standard errors
