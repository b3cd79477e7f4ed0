"""One optimizer step against plain torch, in numbers."""

from dataclasses import replace
import math

import numpy as np
import pytest
import torch
from torch import nn
import torch.nn.functional as F

from raytricks.data.batches import TrainBatches
from raytricks.data.order import epoch_order
from raytricks.data.randomness import step_generator
from raytricks.errors import NonFiniteError
from raytricks.recipe.recipe import make_recipe
from raytricks.training.loop import MAX_SKIPPED_IN_A_ROW, run_epochs
from raytricks.training.records import read_records
from raytricks.training.run_files import CHECKPOINTS
from raytricks.training.state import build_state
from raytricks.training.step import Stepper
from raytricks.training.step_log import STEP_VALUES
from raytricks.training.worker import Worker
from raytricks.tricks.decay import cosine_factor
from raytricks.tricks.mixup import draw_mix_weight

NO_DECAY = {"optimizer__weight_decay": 0.0, "tricks__zero_gamma": False, "model__norm": "group"}


class Step:
    """A stepper, its state and its batches, wired as the loop wires them."""

    def __init__(self, job, precision="fp32", double=False):
        config, worker = job.config, Worker()
        self.config, self.data = config, job.data
        self.recipe = make_recipe(config, len(job.data.train))
        self.state = build_state(config, class_names=[str(n) for n in range(10)], worker=worker, precision=precision)
        if double:
            self.state.model.double()
        self.stepper = Stepper(config, self.recipe, self.state, worker, precision)
        self.batches = TrainBatches(
            data=job.data.train,
            transform=job.data.transform,
            global_batch_size=self.recipe.global_batch_size,
            rank=0,
            world_size=1,
            images_per_device=config.hardware.fixed_limit,
            seed=config.seed,
            device=worker.device,
            with_neighbours=config.tricks.mixup.alpha > 0,
        )

    def accumulate(self):
        """Run the micro-batches of the first step; return their sizes."""
        self.stepper.begin()
        sizes = []
        for batch in self.batches.epoch(0):
            is_double = next(self.state.model.parameters()).dtype == torch.float64
            self.stepper.accumulate(replace(batch, inputs=batch.inputs.double()) if is_double else batch)
            sizes.append(len(batch.labels))
            if batch.is_last_of_step:
                return sizes
        raise AssertionError("no step")

    def gradients(self):
        return [p.grad.clone() for p in self.state.model.parameters()]

    def whole_batch(self):
        """Return the first global batch in one piece: inputs and labels."""
        samples = epoch_order(len(self.data.train), self.config.seed, 0)[: self.recipe.global_batch_size]
        canvas = self.data.train.images.read(samples)
        inputs = self.data.transform.train(canvas, samples, self.config.seed, 0, torch.device("cpu"))
        return inputs, torch.from_numpy(self.data.train.labels[samples])


def plain_gradients(step: Step, inputs, targets):
    """Return what torch alone computes: gradients of the mean cross-entropy to soft targets."""
    step.state.optimizer.zero_grad()
    logits = step.state.model(inputs.contiguous(memory_format=torch.channels_last))
    F.cross_entropy(logits, targets).backward()
    return step.gradients()


@pytest.mark.parametrize(
    ("batch", "images_per_device", "sizes"),
    [(16, None, [16]), (16, 8, [8, 8]), (33, 8, [6, 7, 6, 7, 7]), (7, 1, [1] * 7)],
)
def test_step_accumulation_equals_the_whole_batch(make_job, batch, images_per_device, sizes):
    job = make_job(
        recipe__global_batch_size=batch,
        hardware__images_per_device=images_per_device,
        tricks__label_smoothing__epsilon=0.0,
        **NO_DECAY,
    )
    step = Step(job, double=True)
    assert step.accumulate() == sizes
    ours = step.gradients()
    inputs, labels = step.whole_batch()
    for mine, torchs in zip(ours, plain_gradients(step, inputs.double(), labels), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-8)  # the loss is fp32


@pytest.mark.parametrize("images_per_device", [None, 5])
@pytest.mark.parametrize("form", ["paper", "torch"])
def test_step_smoothing_and_mixup_equal_soft_targets(make_job, form, images_per_device):
    job = make_job(
        recipe__global_batch_size=17,
        hardware__images_per_device=images_per_device,
        tricks__label_smoothing={"epsilon": 0.1, "form": form},
        tricks__mixup__alpha=1.0,
        **NO_DECAY,
    )
    step = Step(job, double=True)
    step.accumulate()
    ours = step.gradients()

    inputs, labels = step.whole_batch()
    weight = draw_mix_weight(1.0, step_generator(step.config.seed, 1, "mixup"))
    assert 0.01 < weight < 0.99  # or the test would prove nothing
    one_hot = F.one_hot(labels, 10).double()  # torchvision.transforms.v2.MixUp, with its roll(1)
    targets = one_hot.roll(1, 0) * (1 - weight) + one_hot * weight
    others = 0.1 / 9 if form == "paper" else 0.1 / 10
    targets = targets * (1 - 0.1 - (others if form == "paper" else 0)) + others
    inputs = inputs.double()
    mixed = inputs.roll(1, 0) * (1 - weight) + inputs * weight
    for mine, torchs in zip(ours, plain_gradients(step, mixed, targets), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-8)  # the loss is fp32


def test_step_soft_targets_of_the_paper_form_sum_to_one():
    target = F.one_hot(torch.tensor([3]), 10).double() * (1 - 0.1 - 0.1 / 9) + 0.1 / 9
    assert float(target.sum()) == pytest.approx(1)
    assert float(target[0, 3]) == pytest.approx(0.9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_step_takes_the_loss_of_half_precision_logits_in_fp32(make_job, monkeypatch, precision):
    step = Step(make_job(**NO_DECAY), precision)
    of_model, seen = [], []
    step.state.model.register_forward_hook(lambda model, inputs, logits: of_model.append(logits.dtype))
    cross_entropy = F.cross_entropy

    def watch(logits, targets, **options):
        seen.append(logits.dtype)
        if targets.is_floating_point():
            seen.append(targets.dtype)
        return cross_entropy(logits, targets, **options)

    monkeypatch.setattr(F, "cross_entropy", watch)
    step.accumulate()
    assert of_model == [torch.bfloat16 if precision == "bf16" else torch.float32]
    assert seen == [torch.float32] * 3  # logits and targets of the loss, and logits for the log


def test_step_update_equals_torch_sgd(make_job):
    job = make_job(tricks__label_smoothing__epsilon=0.0, model__norm="group", optimizer__weight_decay=1e-2)
    step = Step(job)
    twin = Step(job)
    decayed = [p for p in twin.state.model.parameters() if p.ndim > 1]
    free = [p for p in twin.state.model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": free, "weight_decay": 0.0}]
    plain = torch.optim.SGD(groups, lr=step.recipe.lr(1), momentum=0.9, nesterov=True)
    inputs, labels = twin.whole_batch()
    for number in (1, 2):
        step.accumulate()
        step.stepper.update(step.stepper.gradient_norm())
        for group in plain.param_groups:
            group["lr"] = step.recipe.lr(number)
        plain_gradients(twin, inputs, labels)
        plain.step()
        plain.zero_grad()
    for mine, torchs in zip(step.state.model.parameters(), twin.state.model.parameters(), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [1e-3, 1e6])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_step_clips_in_true_units(make_job, clip_norm, precision):
    step = Step(make_job(recipe__clip_norm=clip_norm, **NO_DECAY), precision)
    step.accumulate()
    norm = step.stepper.gradient_norm()
    true_gradients = step.gradients()
    step.stepper.update(norm)
    clipped = torch.cat([g.flatten() for g in step.gradients()])
    assert float(clipped.norm()) == pytest.approx(min(float(norm), clip_norm), rel=1e-3)
    assert 0.01 < float(norm) < 100  # not in units of the loss scale, 65536
    assert float(norm) == pytest.approx(float(torch.cat([g.flatten() for g in true_gradients]).norm()), rel=1e-4)


def test_step_fp16_skips_an_infinite_gradient(make_job):
    step = Step(make_job(**NO_DECAY), "fp16")
    before = [p.detach().clone() for p in step.state.model.parameters()]
    scale = step.state.scaler.get_scale()
    step.accumulate()
    next(step.state.model.parameters()).grad[0, 0, 0, 0] = math.inf
    row = step.stepper.update(step.stepper.gradient_norm())
    assert row[STEP_VALUES.index("skipped")] == 1  # counted
    assert step.state.step == 1  # the schedule goes on
    assert step.state.scaler.get_scale() == scale / 2
    for old, new in zip(before, step.state.model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_step_after_a_skipped_first_step_starts_from_no_momentum(make_job):
    """torch 2.15's fused SGD leaves the momentum uninitialised when the first step is skipped."""
    step = Step(make_job(**NO_DECAY), "fp16")
    junk = [torch.full_like(p, 7e5) for p in step.state.model.parameters()]  # what freed memory may hold
    step.accumulate()
    del junk
    next(step.state.model.parameters()).grad[0, 0, 0, 0] = math.inf
    step.stepper.update(step.stepper.gradient_norm())
    for parameter in step.state.model.parameters():
        assert not step.state.optimizer.state[parameter]["momentum_buffer"].any()


def test_step_lr_of_every_step_is_the_formula(make_job):
    job = make_job(recipe__epochs=5, tricks__warmup__epochs=1.5)
    step = Step(job)
    seen = []
    for _ in range(step.recipe.total_steps):
        step.accumulate()
        seen.append(step.state.optimizer.param_groups[0]["lr"])
        step.stepper.update(step.stepper.gradient_norm())
    peak, warmup, total = 0.1 * 16 / 256, 6, 20
    expected = [
        peak * n / warmup if n <= warmup else peak * (1 + math.cos(math.pi * (n - 1 - warmup) / (total - warmup))) / 2
        for n in range(1, total + 1)
    ]
    assert seen == pytest.approx(expected)
    list(run_epochs(job, Worker()))
    records = read_records(job.run_dir / "metrics.jsonl")
    assert [r["lr"] for r in records if r["kind"] == "step"] == seen
    assert seen[-1] == peak * cosine_factor(20, warmup_steps=6, total_steps=20)


def test_loop_stops_at_the_first_non_finite_gradient(make_job):
    job = make_job()
    job = replace(job, data=replace(job.data, transform=replace(job.data.transform, std=(0.0,))))
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"step 1 \(epoch 1\).*base_lr"):
        list(run_epochs(job, Worker()))
    assert not (job.run_dir / CHECKPOINTS).exists()
    assert read_records(job.run_dir / "metrics.jsonl") == []


@pytest.mark.parametrize("every_steps", [1, 7])
def test_loop_fp16_stops_after_too_many_skipped_steps(make_job, every_steps):
    job = make_job(
        model__norm="group",
        hardware__precision="fp16",
        recipe__epochs=60,
        num_train=16 * 30,
        logging__every_steps=every_steps,
    )
    job = replace(job, data=replace(job.data, transform=replace(job.data.transform, std=(0.0,))))
    with pytest.raises(NonFiniteError, match=rf"step {MAX_SKIPPED_IN_A_ROW}: .*overflowed in fp16.*bf16 or fp32"):
        list(run_epochs(job, Worker()))
    text = (job.run_dir / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text  # JSON has neither
    assert read_records(job.run_dir / "metrics.jsonl")[0]["skipped_steps"] == every_steps


def test_loop_fp16_counts_skipped_steps_and_leaves_them_out_of_the_means(make_job, monkeypatch):
    job = make_job(model__norm="group", hardware__precision="fp16", recipe__epochs=2)
    norms = iter([True, False, False, True, True, True, True, True])
    true_norm = Stepper.gradient_norm

    def sometimes_infinite(self):
        if next(norms):
            return true_norm(self)
        next(self._state.model.parameters()).grad.view(-1)[0] = math.inf
        return true_norm(self)

    monkeypatch.setattr(Stepper, "gradient_norm", sometimes_infinite)
    epochs = list(run_epochs(job, Worker()))
    assert [e["skipped_steps"] for e in epochs] == [2, 0]
    steps = [r for r in read_records(job.run_dir / "metrics.jsonl") if r["kind"] == "step"][:4]
    assert [s["skipped_steps"] for s in steps] == [0, 1, 1, 0]
    assert [s["grad_norm"] is None for s in steps] == [False, True, True, False]
    assert epochs[0]["train_objective"] == pytest.approx((steps[0]["objective"] + steps[3]["objective"]) / 2)


def test_loop_counts_only_whole_batches_and_every_image_once(make_job):
    job = make_job(num_train=70)  # 4 steps of 16, 6 images wait
    seen = [samples for samples, _ in Step(job).batches.samples(0)]
    assert len(np.unique(np.concatenate(seen))) == 64
    assert isinstance(Step(job).state.model, nn.Module)
