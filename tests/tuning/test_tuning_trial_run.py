"""A trial without Ray: replay, resume, failures, and what its files say."""

from dataclasses import replace
import time

from conftest import LRS
import pytest
from safetensors.torch import load_file
import torch

from raytricks.config import load_config
from raytricks.errors import RaytricksError
from raytricks.training.loop import run_epochs
from raytricks.training.run_directory import progress_of, require_same_data
from raytricks.training.worker import Worker
from raytricks.tuning import trial_run
from raytricks.tuning.trial_files import read_outcomes, read_state, write_state


def epochs_of(records) -> list[int]:
    return [record["epoch"] for record in records]


def test_trial_is_a_finished_run_directory_with_its_own_values(make_task, open_trial):
    task = make_task(points=[{"recipe.base_lr": 0.25, "recipe.global_batch_size": 16}] * 2)
    run = open_trial(task, 1)
    records = list(run.epochs())
    assert epochs_of(records) == [1, 2, 3, 4]
    config = load_config(run.trial_dir / "config.yaml").config
    assert (config.recipe.base_lr, config.recipe.global_batch_size, config.seed) == (0.25, 16, task.base.seed)
    assert records[-1]["step"] == 4 * (len(task.splits.train) // 16)
    assert (run.trial_dir / "model.safetensors").is_file()
    assert progress_of(run.trial_dir) == "4 of 4 epochs"
    require_same_data(run.trial_dir, task.splits)
    state = read_state(run.trial_dir)
    assert state is not None and state.status == "finished" and len(state.epoch_times) == 4
    assert list(state.epoch_times) == sorted(state.epoch_times)
    assert state.train_s >= sum(record["train_s"] for record in records)


def test_given_config_is_trained_as_it_is(make_task, open_trial):
    task = make_task()
    configs = tuple(task.base.model_copy(update={"seed": seed}) for seed in (3, 7))
    run = open_trial(replace(task, configs=configs), 1)
    next(run.epochs())
    config = load_config(run.trial_dir / "config.yaml").config
    assert config.seed == 7 and config.recipe.base_lr == task.base.recipe.base_lr != LRS[1]


def test_finished_trial_is_replayed_and_nothing_written(make_task, open_trial):
    task = make_task()
    run = open_trial(task)
    first = list(run.epochs())
    run.close()
    before = {p: p.stat().st_mtime_ns for p in run.trial_dir.rglob("*") if p.is_file() and p.name != ".lock"}
    again = open_trial(task, train=lambda job: pytest.fail("trained again"))
    records = list(again.epochs())
    assert [r["val_top1"] for r in records] == [r["val_top1"] for r in first]
    assert (again.num_replayed, again.last_epoch) == (4, 4)
    after = {p: p.stat().st_mtime_ns for p in run.trial_dir.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before


def test_resumed_trial_trains_only_the_rest_and_ends_alike(make_task, open_trial):
    whole = open_trial(make_task(folder="whole"))
    expected = list(whole.epochs())
    task = make_task(folder="cut")
    run = open_trial(task)
    iterator = run.epochs()
    cut = [next(iterator), next(iterator)]
    run.close()
    resumed = open_trial(task)
    trained: list[int] = []

    def train(job):
        for record in run_epochs(job, Worker()):
            trained.append(record["epoch"])
            yield record

    resumed._train = train
    records = list(resumed.epochs())
    assert resumed.num_replayed == 2 and trained == [3, 4]
    assert epochs_of(records) == [1, 2, 3, 4] and [r["val_top1"] for r in records[:2]] == [r["val_top1"] for r in cut]
    assert [r["val_top1"] for r in records] == [r["val_top1"] for r in expected]
    ours, theirs = (load_file(r.trial_dir / "model.safetensors") for r in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_epoch_written_but_not_saved_is_trained_again(make_task, open_trial):
    task = make_task()
    run = open_trial(task)
    iterator = run.epochs()
    next(iterator), next(iterator)
    run.close()
    newest = sorted((run.trial_dir / "checkpoints").iterdir())[-1]
    newest.rename(run.trial_dir / "lost")  # as if killed between the record and the checkpoint
    again = open_trial(task)
    assert again.num_replayed == 1
    assert epochs_of(again.epochs()) == [1, 2, 3, 4]


def test_trial_killed_before_its_state_was_written_counts_the_saved_epoch(make_task, open_trial):
    task = make_task()
    run = open_trial(task)
    iterator = run.epochs()
    next(iterator), next(iterator)
    write_state(run.trial_dir, replace(run.state, epoch_times=run.state.epoch_times[:1]))
    run.close()
    again = open_trial(task)
    assert epochs_of(again.epochs()) == [1, 2, 3, 4]
    assert len(again.state.epoch_times) == 4
    assert list(again.state.epoch_times) == sorted(again.state.epoch_times)


def test_trial_killed_before_its_model_was_written_gets_one(make_task, open_trial):
    task = make_task()
    run = open_trial(task)
    list(run.epochs())
    write_state(run.trial_dir, replace(run.state, status="running"))
    (run.trial_dir / "model.safetensors").unlink()
    run.close()
    again = open_trial(task)
    assert epochs_of(again.epochs()) == [1, 2, 3, 4]
    assert again.state.status == "finished" and (run.trial_dir / "model.safetensors").is_file()


def raising(error):
    def train(job):
        yield {"kind": "epoch", "step": 1, "epoch": 1, "val_top1": 0.5, "train_s": 0.0}
        raise error

    return train


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RaytricksError("too bad; do this\nsecond line"), "too bad; do this"),
        (torch.OutOfMemoryError("tried to allocate 2 GiB"), "OutOfMemoryError: tried to allocate 2 GiB"),
        (ValueError(), "ValueError"),
    ],
)
def test_failure_is_noted_with_reason_and_traceback(make_task, open_trial, error, reason):
    run = open_trial(make_task(), train=raising(error))
    assert epochs_of(run.epochs()) == [1]
    state = read_state(run.trial_dir)
    assert state is not None and (state.status, state.reason) == ("failed", reason)
    log = (run.trial_dir / "log.txt").read_text()
    assert "Traceback" in log and type(error).__name__ in log
    run.close()
    assert list(open_trial(make_task(), train=lambda job: pytest.fail("retried")).epochs()) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"recipe.base_lr": 1e30, "recipe.global_batch_size": 32}, "the gradient is"),
        ({"recipe.base_lr": 0.1, "recipe.global_batch_size": 4096}, "recipe.global_batch_size is 4096"),
        ({"recipe.base_lr": -1.0, "recipe.global_batch_size": 32}, "recipe.base_lr"),
    ],
)
def test_values_that_cannot_train_fail_their_trial_only(make_task, open_trial, values, reason):
    task = make_task(points=[values, {"recipe.base_lr": 0.1, "recipe.global_batch_size": 32}])
    bad, good = open_trial(task, 0), open_trial(task, 1)
    assert len(list(bad.epochs())) < 4 and len(list(good.epochs())) == 4
    outcomes = read_outcomes(task.trials_dir, 0.0)
    assert [outcome.status for outcome in outcomes] == ["failed", "finished"]
    assert reason in (outcomes[0].reason or "")
    assert outcomes[0].score is None and outcomes[1].score == outcomes[1].top1[-1]


def test_stop_request_keeps_the_step_and_goes_on(make_task, open_trial):
    task = make_task()
    asked = []

    def train(job):
        return run_epochs(job, Worker(), stop_requested=lambda: asked.append(1) or (2 if len(asked) == 5 else 0))

    run = open_trial(task, train=train)
    assert epochs_of(run.epochs()) == [1] and run.is_interrupted
    assert read_outcomes(task.trials_dir, 0.0)[0].status == "unfinished"
    assert (run.trial_dir / "checkpoints" / "step-00000005").is_dir()
    run.close()
    again = open_trial(task)
    assert epochs_of(again.epochs()) == [1, 2, 3, 4] and again.state.status == "finished"


def test_deadline_keeps_new_trials_from_beginning_but_the_first(make_task, open_trial):
    task = replace(make_task(), deadline=time.time() - 1)
    assert len(list(open_trial(task, 0).epochs())) == 4
    late = open_trial(task, 1)
    assert list(late.epochs()) == []
    outcome = read_outcomes(task.trials_dir, 0.0)[1]
    assert (outcome.status, outcome.reason) == ("unfinished", trial_run.OUT_OF_TIME)
    late.close()
    begun = open_trial(replace(task, deadline=None), 1)
    iterator = begun.epochs()
    next(iterator)
    begun.close()
    assert len(list(open_trial(task, 1).epochs())) == 4  # it had begun in time


def test_trial_in_use_is_left_alone(make_task, open_trial, monkeypatch):
    task = make_task()
    next(open_trial(task).epochs())
    monkeypatch.setattr(trial_run, "_LOCK_WAIT_S", 0.1)
    with pytest.raises(RaytricksError, match="another process trains this trial"):
        open_trial(task)


def test_searched_image_size_prepares_other_images(make_task, open_trial):
    space = {"data.image_size": [8, 16], "data.shift_pixels": [0, 1]}
    points = [{"data.image_size": 8, "data.shift_pixels": 1}, {"data.image_size": 16, "data.shift_pixels": 0}]
    task = make_task(points=points, tune__space=space, recipe__epochs=2)
    first, second = open_trial(task, 0), open_trial(task, 1)
    assert first._data.of(load_config(None, {}).config.model_copy(update={"data": task.base.data})) is task.data
    assert len(list(first.epochs())) == len(list(second.epochs())) == 2
    sides = [data.train.images.pixels.shape[-1] for data in second._data._kept.values()]
    assert sides == [8, 16]
    assert len(first._data._kept) == 1  # a shift needs no other pixels
