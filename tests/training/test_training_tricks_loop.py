"""The tricks in the whole loop: files, records, resume and fp16."""

import math

import pytest
import torch

from raytricks.errors import InterruptedRun
from raytricks.inference.model_file import load_model
from raytricks.training.checkpoint import newest_checkpoint, save_checkpoint
from raytricks.training.loop import _Run, run_epochs
from raytricks.training.run_files import MODEL_FILE
from raytricks.training.step import Stepper
from raytricks.training.worker import Worker

AVERAGE_FILE = "model_ema.safetensors"

EVERYTHING = {
    "tricks__ema__decay": 0.9,
    "tricks__cutmix__alpha": 1.0,
    "tricks__mixup__alpha": 0.2,
    "tricks__mixup__off_epochs": 1,
    "tricks__random_erasing__probability": 0.5,
    "tricks__trivial_augment": True,
    "logging__noise_scale_every": 2,
    "optimizer__name": "lamb",
    "recipe__base_lr": 0.05,
}


def train(job) -> list[dict]:
    return list(run_epochs(job, Worker()))


def test_loop_evaluates_and_saves_the_average_beside_the_weights(make_job):
    job = make_job(tricks__ema__decay=0.9)
    last = train(job)[-1]
    raw, average = load_model(job.run_dir / MODEL_FILE), load_model(job.run_dir / AVERAGE_FILE)
    assert raw.metrics["val_top1"] == last["val_top1"] and "val_ema_top1" not in raw.metrics
    assert average.metrics["val_top1"] == last["val_ema_top1"]
    assert not torch.equal(raw.model.fc.weight, average.model.fc.weight)
    evaluation = job.data.evaluation
    inputs = average.preprocess.transform.evaluate(evaluation.images.read(range(len(evaluation))), torch.device("cpu"))
    with torch.no_grad():
        correct = average.model(inputs).argmax(1) == torch.from_numpy(evaluation.labels)
    assert float(correct.float().mean()) == pytest.approx(last["val_ema_top1"], abs=0.021)


def test_loop_without_an_average_writes_none(make_job):
    job = make_job(recipe__epochs=1, tricks__warmup__epochs=0.0)
    assert "val_ema_top1" not in train(job)[-1]
    assert not (job.run_dir / AVERAGE_FILE).exists()


@pytest.mark.parametrize("stop_after", [2, 5, 9])
def test_loop_with_everything_on_resumes_bit_for_bit(make_job, stop_after):
    whole, stopped = make_job("whole", **EVERYTHING), make_job("stopped", **EVERYTHING)
    train(whole)
    run = _Run(stopped, Worker(), lambda: 2 if run.state.step >= stop_after else 0, None)
    with pytest.raises(InterruptedRun):
        list(run.epochs())
    run.close()
    train(stopped)
    for name in (MODEL_FILE, AVERAGE_FILE):
        expected, found = (load_model(job.run_dir / name).model.state_dict() for job in (whole, stopped))
        assert all(torch.equal(expected[key], found[key]) for key in expected), name


def test_loop_mixes_until_its_last_epochs(make_job, monkeypatch):
    job = make_job(tricks__mixup__alpha=1.0, tricks__mixup__off_epochs=1)
    seen = []
    begin = Stepper.begin

    def watch(self):
        begin(self)
        seen.append(self._blend is not None)

    monkeypatch.setattr(Stepper, "begin", watch)
    train(job)
    assert seen == [True] * 8 + [False] * 4


def test_loop_fp16_overflow_does_not_poison_the_batch_norm_statistics(make_job, monkeypatch):
    job = make_job(hardware__precision="fp16", recipe__epochs=2)
    accumulate = Stepper.accumulate

    def overflow_in_step_3(self, batch):
        if self._state.step == 2:
            batch.inputs.fill_(math.inf)
        accumulate(self, batch)

    monkeypatch.setattr(Stepper, "accumulate", overflow_in_step_3)
    epochs = train(job)
    assert [epoch["skipped_steps"] for epoch in epochs] == [1, 0]
    assert math.isfinite(epochs[-1]["val_cross_entropy"])
    found = newest_checkpoint(job.run_dir / "checkpoints")
    assert found is not None and all(v.isfinite().all() for v in found.content["model"].values())


def test_loop_without_the_guard_would_have_been_poisoned(make_job, monkeypatch):
    """So that the test above can fail."""
    monkeypatch.setattr("raytricks.training.step.BufferSnapshot.restore_unless", lambda self, is_good: None)
    with pytest.raises(Exception, match="NaN or infinity|poisoned"):
        test_loop_fp16_overflow_does_not_poison_the_batch_norm_statistics(make_job, monkeypatch)


def test_loop_distils_live_and_cached_alike(make_job, tmp_path):
    teacher = make_job("teacher", seed=7)
    train(teacher)
    shared = {"tricks__distillation__teacher": str(teacher.run_dir), "tricks__distillation__temperature": 4.0}
    live = make_job("live", **shared)
    cached = [make_job(name, tricks__distillation__cache_dir=str(tmp_path / "cache"), **shared) for name in "ab"]
    expected = train(live)
    for job in cached:
        for mine, theirs in zip(train(job), expected, strict=True):
            assert mine["train_objective"] == pytest.approx(theirs["train_objective"], rel=1e-4)
    notes = [(job.run_dir / "metrics.jsonl").read_text().count("teacher's logits") for job in cached]
    assert notes == [3, 0]  # computed once an epoch, then read


def test_loop_starts_from_given_weights_once(make_job, tmp_path):
    first = make_job("first")
    train(first)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((first.run_dir / MODEL_FILE).read_bytes())
    job = make_job("second", model__init_from=str(weights), recipe__base_lr=1e-9, tricks__no_bias_decay=True)
    run = _Run(job, Worker(), lambda: 2, None)
    given = load_model(weights).model.state_dict()
    assert all(torch.equal(run.state.model.state_dict()[name], value) for name, value in given.items())
    assert run.state.model.layer1[0].bn2.weight.abs().sum() > 0  # zero gamma is for fresh weights
    with pytest.raises(InterruptedRun):
        list(run.epochs())
    run.close()
    weights.unlink()  # a resumed run has its own
    train(job)


def test_loop_resumes_a_checkpoint_that_counted_less(make_job):
    """As one of a version before the gradient noise and the wait for data were counted."""
    job = make_job(logging__noise_scale_every=1)
    run = _Run(job, Worker(), lambda: 2 if run.state.step >= 2 else 0, None)
    with pytest.raises(InterruptedRun):
        list(run.epochs())
    run.close()
    found = newest_checkpoint(job.run_dir / "checkpoints")
    assert found is not None
    for name in ("data_wait_s", *(name for name in found.content["epoch_totals"] if name.startswith("noise_"))):
        del found.content["epoch_totals"][name]
    save_checkpoint(job.run_dir / "checkpoints", found.step, found.content, keep=2)
    assert [epoch["epoch"] for epoch in train(job)] == [1, 2, 3]
