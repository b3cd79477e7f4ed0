"""A run whose settings change goes on as a run that always had them, and resumes bit for bit."""

from dataclasses import replace
import math

import pytest
from safetensors.torch import load_file
from test_training_resume import assert_same_run, interrupt, metrics
import torch
from torch import nn
import torch.nn.functional as F

import raytricks
from raytricks.config import load_config
from raytricks.data.order import epoch_order
from raytricks.data.randomness import step_generator
from raytricks.errors import ConfigError, RaytricksError
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.optimizer import build_optimizer, change_settings
from raytricks.training.records import read_records
from raytricks.training.run_files import MODEL_FILE
from raytricks.training.state import build_state
from raytricks.training.worker import Worker
from raytricks.tricks.decay import cosine_factor
from raytricks.tricks.mixup import draw_mix_weight, mix
from raytricks.tricks.warmup import warmup_factor

RUN = {"num_train": 70, "recipe__epochs": 4}
BATCH = {"recipe.global_batch_size": 24, "recipe.base_lr": 0.3, "tricks.mixup.alpha": 0.4}


def after(epoch: int, values: dict) -> list[dict]:
    return [{"epoch": epoch, "values": values}]


def train(job: TrainingJob) -> list[dict]:
    return list(run_epochs(job, Worker()))


def weights(job: TrainingJob) -> dict[str, torch.Tensor]:
    return load_file(job.run_dir / MODEL_FILE)


def steps(job: TrainingJob) -> list[dict]:
    return [r for r in metrics(job.run_dir) if r["kind"] == "step"]


def is_same(one: TrainingJob, other: TrainingJob) -> bool:
    ours, theirs = weights(one), weights(other)
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_change_to_the_same_settings_changes_nothing(make_job):
    plain = make_job("plain", **RUN)
    changed = make_job("changed", **RUN, changes=after(2, {"recipe.base_lr": 0.1, "data.horizontal_flip": False}))
    for job in (plain, changed):
        train(job)
    assert_same_run(plain.run_dir, changed.run_dir)


CONTINUED = {
    "sgd": ({}, {"optimizer__momentum": 0.5, "optimizer__weight_decay": 0.1}),
    "momentum off": ({"optimizer__nesterov": False}, {"optimizer__momentum": 0.0}),
    "momentum on": ({"optimizer__nesterov": False, "optimizer__momentum": 0.0}, {"optimizer__momentum": 0.9}),
    "lars": (
        {"optimizer__name": "lars", "recipe__base_lr": 5.0},
        {"optimizer__trust_coefficient": 0.01, "optimizer__weight_decay": 0.1},
    ),
    "lamb": (
        {"optimizer__name": "lamb", "recipe__base_lr": 0.02},
        {"optimizer__betas": (0.5, 0.9), "optimizer__epsilon": 1e-3},
    ),
    "objective": (
        {"tricks__mixup__alpha": 0.4},
        {
            "recipe__base_lr": 0.5,
            "recipe__clip_norm": 0.1,
            "tricks__mixup__alpha": 0.0,
            "tricks__cutmix__alpha": 1.0,
            "tricks__cutmix__off_epochs": 1,
            "tricks__label_smoothing__epsilon": 0.5,
        },
    ),
    "images": (
        {"tricks__ema__decay": 0.9},
        {"data__shift_pixels": 3, "tricks__trivial_augment": True, "tricks__random_erasing__probability": 0.5},
    ),
    "crops": (
        {"data__augmentation": "random_resized_crop"},
        {"data__crop_scale": (0.5, 0.6), "data__horizontal_flip": True},
    ),
}


@pytest.mark.parametrize("case", CONTINUED)
def test_change_is_going_on_from_the_checkpoint_with_the_other_config(make_job, case):
    before, values = CONTINUED[case]
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    changed = make_job("changed", **RUN, **before, changes=after(2, dotted))
    parted, plain = make_job("parted", **RUN, **before), make_job("plain", **RUN, **before)
    other = make_job("other", **RUN, **before | values)
    train(changed)
    train(plain)
    epochs = run_epochs(parted, Worker())
    next(epochs)
    next(epochs)
    epochs.close()
    train(replace(other, run_dir=parted.run_dir))
    assert is_same(changed, parted) and metrics(changed.run_dir) == metrics(parted.run_dir)
    assert not is_same(changed, plain)
    assert steps(changed)[:8] == steps(plain)[:8] != steps(changed)[8:]


def plain_torch(job: TrainingJob) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train with 16 images a step for 2 epochs, then 2 with 24 and mixup; return weights and lr of each step."""
    config, data = job.config, job.data
    model = build_state(config, class_names=data.class_names, worker=Worker(), precision="fp32").model.train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True, fused=True)
    rates: list[float] = []
    for epoch in range(4):
        batch, base_lr, alpha = (16, 0.1, 0.0) if epoch < 2 else (24, 0.3, 0.4)
        num_steps = 70 // batch
        order = epoch_order(70, config.seed, epoch)
        for k in range(num_steps):
            samples = order[k * batch : (k + 1) * batch]
            inputs = data.transform.train(
                data.train.images.read(samples), samples, config.seed, epoch, torch.device("cpu")
            )
            labels = torch.from_numpy(data.train.labels[samples])
            weight = draw_mix_weight(alpha, step_generator(config.seed, len(rates) + 1, "mixup"))
            inputs = mix(inputs, inputs.roll(1, 0), weight).contiguous(memory_format=torch.channels_last)
            logits = model(inputs)
            one_hot = F.one_hot(labels, 10).float()
            targets = (weight * one_hot + (1 - weight) * one_hot.roll(1, 0)) * (1 - 0.1 - 0.1 / 9) + 0.1 / 9
            losses = F.cross_entropy(logits, targets, reduction="none")
            n, total = epoch * num_steps + k + 1, 4 * num_steps
            peak_lr = base_lr * batch / 256
            rates.append(peak_lr * warmup_factor(n, num_steps) * cosine_factor(n, num_steps, total))
            for group in optimizer.param_groups:
                group["lr"] = rates[-1]
            optimizer.zero_grad()
            (losses.sum() / batch).backward()
            optimizer.step()
    return model.state_dict(), rates


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_change_of_the_batch_is_what_plain_torch_does(make_job, norm):
    job = make_job(**RUN, model__norm=norm, changes=after(2, BATCH))
    records = train(job)
    expected, rates = plain_torch(job)
    for name, value in weights(job).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7, msg=name)
    assert [s["lr"] for s in steps(job)] == rates
    assert [r["lr"] for r in records] == [rates[3], rates[7], rates[9], rates[11]]


def test_change_of_the_batch_counts_steps_epochs_and_rates(make_job):
    job = make_job(**RUN, changes=after(2, BATCH))
    train(job)
    logged = steps(job)
    assert [s["step"] for s in logged] == list(range(1, 13))  # 2 x 70 // 16, then 2 x 70 // 24
    assert [s["epoch"] for s in logged] == [1] * 4 + [2] * 4 + [3] * 2 + [4] * 2
    first, second = 0.1 * 16 / 256, 0.3 * 24 / 256
    fall = [(1 + math.cos(math.pi * part)) / 2 for part in (0, 1 / 12, 2 / 12, 3 / 12, 2 / 6, 3 / 6, 4 / 6, 5 / 6)]
    rates = [first * k / 4 for k in (1, 2, 3, 4)] + [first * f for f in fall[:4]] + [second * f for f in fall[4:]]
    assert [s["lr"] for s in logged] == pytest.approx(rates, rel=1e-12)


RESUMED = {
    "batch": {"changes": after(2, BATCH)},
    "everything": {
        "optimizer__name": "lamb",
        "recipe__base_lr": 0.05,
        "tricks__ema__decay": 0.9,
        "hardware__images_per_device": 9,
        "model__norm": "group",
        "changes": after(
            2,
            BATCH | {"recipe.base_lr": 0.02, "data.shift_pixels": 2, "optimizer.betas": [0.5, 0.6],
                     "tricks.cutmix.alpha": 1.0, "tricks.random_erasing.probability": 0.5},
        ),
    },
    "fp16": {"hardware__precision": "fp16", "changes": after(2, BATCH)},
    "momentum off and on": {
        "optimizer__nesterov": False,
        "changes": after(1, {"optimizer.momentum": 0.0, "recipe.global_batch_size": 16})
        + after(2, BATCH | {"optimizer.momentum": 0.9}),
    },
}  # fmt: skip


@pytest.mark.parametrize("recipe", RESUMED)
@pytest.mark.parametrize("after_step", [8, 9])  # the end of a phase, and amid an epoch of the next one
def test_change_resumes_bit_for_bit(make_job, recipe, after_step):
    whole, parted = (make_job(name, **RUN, **RESUMED[recipe]) for name in ("whole", "parted"))
    train(whole)
    interrupt(parted, after_step)
    train(parted)
    assert_same_run(whole.run_dir, parted.run_dir)
    notes = [r["text"] for r in read_records(parted.run_dir / "metrics.jsonl") if r["kind"] == "note"]
    assert notes == [f"resumed from step-{after_step:08d}"]


def test_change_resumes_many_times_bit_for_bit(make_job):
    settings = RUN | {"checkpoint__every_steps": 3, "changes": after(1, BATCH) + after(3, {"recipe.base_lr": 0.1})}
    whole, parted = make_job("whole", **settings), make_job("parted", **settings)
    train(whole)
    for _ in range(len(steps(whole)) - 1):
        interrupt(parted, 1)
    train(parted)
    assert_same_run(whole.run_dir, parted.run_dir)


def test_changed_run_scores_the_test_split_and_saves_the_model(make_job):
    job = make_job(**RUN, changes=after(2, BATCH))
    job = replace(job, data=replace(job.data, test=job.data.evaluation))
    last = train(job)[-1]
    (test,) = [r for r in metrics(job.run_dir) if r["kind"] == "test"]
    assert (test["step"], test["epoch"], test["test_top1"]) == (12, 4, last["val_top1"])
    assert raytricks.load(job.run_dir).metrics["test_top1"] == test["test_top1"]


def test_change_that_a_worker_cannot_carry_out_shows_before_the_first_step(make_job):
    job = make_job(**RUN, changes=after(2, {"recipe.global_batch_size": 1}))
    with pytest.raises(ConfigError, match="batch norm needs 2 images"):
        train(job)
    assert metrics(job.run_dir) == []


def test_change_of_colour_is_refused_on_gray_images_before_the_first_step(make_job):
    job = make_job(**RUN, changes=after(2, {"tricks.color_jitter.saturation": 0.4}))
    with pytest.raises(ConfigError, match="color_jitter.saturation needs colour images"):
        train(job)


# -- the optimizer ------------------------------------------------------------------------


def velocities(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [state["momentum_buffer"] for state in optimizer.state.values()]


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_change_of_settings_keeps_the_velocity_while_there_is_momentum(name):
    base = {"optimizer.name": name, "optimizer.nesterov": False, "data.source": "digits"}

    def config(**options: float):
        return load_config(None, base | {f"optimizer.{key}": value for key, value in options.items()}).config

    model = nn.Linear(3, 2)
    optimizer = build_optimizer(model, config())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    before = [v.clone() for v in velocities(optimizer)]
    assert any(v.abs().sum() > 0 for v in before)
    change_settings(optimizer, model, config(momentum=0.5, weight_decay=0.25))
    assert [g["momentum"] for g in optimizer.param_groups] == [0.5, 0.5]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.25, 0.0]
    assert all(torch.equal(a, b) for a, b in zip(velocities(optimizer), before, strict=True))
    change_settings(optimizer, model, config(momentum=0.0))
    assert velocities(optimizer) == []
    change_settings(optimizer, model, config(momentum=0.9))
    assert [float(v.abs().sum()) for v in velocities(optimizer)] == [0.0, 0.0]


# -- a teacher ----------------------------------------------------------------------------


def test_change_beside_a_teacher_with_and_without_kept_logits(make_job, tmp_path):
    teacher = make_job("teacher", num_train=70, seed=7)
    train(teacher)
    shared = RUN | {
        "tricks__distillation__teacher": str(teacher.run_dir),
        "tricks__distillation__temperature": 4.0,
        "model__norm": "group",
    }
    kept = {"tricks__distillation__cache_dir": str(tmp_path / "cache")}
    values = {"tricks.distillation.hard_weight": 1.0, "recipe.global_batch_size": 24, "recipe.base_lr": 0.3}
    plain = make_job("plain", **shared)
    live, cached, parted = (
        make_job(name, **shared, **more, changes=after(2, values))
        for name, more in (("live", {}), ("cached", kept), ("parted", kept))
    )
    for job in (plain, live, cached):
        train(job)
    interrupt(parted, 9)
    train(parted)
    assert is_same(cached, parted)
    objectives = [[s["objective"] for s in steps(job)] for job in (live, cached, plain)]
    assert objectives[1] == pytest.approx(objectives[0], rel=1e-4)
    assert objectives[0][:8] == objectives[2][:8]
    assert objectives[0][8] > 1.5 * objectives[2][8]  # the labels' part is twice as large


# -- workers and the API ------------------------------------------------------------------


def train_share(worker: Worker, job: TrainingJob) -> list[dict]:
    return list(run_epochs(job, worker))


def test_changed_run_of_two_workers_is_that_of_one(fleet, make_job):
    jobs = {n: make_job(f"run-{n}", **RUN, model__norm="group", changes=after(2, BATCH)) for n in (1, 2)}
    for world_size, job in jobs.items():
        for outcome in fleet.run(world_size, train_share, job):
            assert not isinstance(outcome, Exception), outcome
    alone, together = steps(jobs[1]), steps(jobs[2])
    assert len(alone) == len(together) == 12
    for name in ("objective", "cross_entropy", "top1", "grad_norm", "lr"):
        assert [s[name] for s in together] == pytest.approx([s[name] for s in alone], rel=1e-4, abs=1e-6), name


SETTINGS = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 2,
    "recipe.global_batch_size": 256,
    "tricks.warmup.epochs": 0.5,
    "hardware.precision": "fp32",
    "hardware.cpus_per_worker": 1,
    "logging.tensorboard": False,
    "changes": [{"epoch": 1, "values": {"recipe.global_batch_size": 300, "tricks.mixup.alpha": 0.2}}],
}


def test_config_of_a_changed_run_repeats_it(tmp_path):
    place = {"output_dir": str(tmp_path)}
    run = raytricks.train(None, SETTINGS | place | {"name": "run"})
    assert run is not None and run.last["step"] == 1438 // 256 + 1438 // 300
    again = raytricks.train(run.run_dir / "config.yaml", {"name": "again"})
    assert again is not None
    assert_same_run(run.run_dir, again.run_dir)
    header = (run.run_dir / "log.txt").read_text()
    assert "change    after epoch 1: recipe.global_batch_size 300, tricks.mixup.alpha 0.2; 4 steps an epoch" in header


@pytest.mark.parametrize("values", [{"recipe.global_batch_size": 1}, {"recipe.global_batch_size": 2000}])
def test_change_that_cannot_be_trained_leaves_no_run(tmp_path, values):
    changed = SETTINGS | {"output_dir": str(tmp_path), "name": "run", "changes": after(1, values)}
    with pytest.raises(RaytricksError, match="global.batch"):
        raytricks.train(None, changed)
    assert not (tmp_path / "run").exists()
