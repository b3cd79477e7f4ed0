"""Trials on real Ray Tune, one local cluster for the whole module."""

from contextlib import suppress
from dataclasses import replace
import hashlib
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from tiny_study import LRS, tiny_task
import torch

from raytricks.cluster.session import ray_session
from raytricks.cluster.tune.driver import check_search, run_trials, trial_slots
from raytricks.config import flatten, load_config
from raytricks.errors import ClusterError, ConfigError, InterruptedRun
from raytricks.tuning.rungs import first_rung, rungs
from raytricks.tuning.space import default_values, sample_values
from raytricks.tuning.study_task import StudyTask
from raytricks.tuning.trial_files import epoch_records, read_outcomes, read_state, trial_directory

# Ray and what it imports warn about themselves; warnings of ours stay errors
_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]


@pytest.fixture(scope="module")
def cluster():
    with ray_session() as resources:
        yield resources


@pytest.fixture(scope="module")
def carry_out(cluster):
    """Return a function that carries out a task; gives the events and the outcomes."""

    def run(task: StudyTask, *, react=None, stop_requested=lambda: 0, trial_class=None):
        events = []

        def listen(number, record, status):
            events.append((number, record and record["epoch"], status))
            if react is not None:
                react(number, record, status)

        run_trials(
            task,
            resources=cluster,
            use_gpu=False,
            listener=listen,
            stop_requested=stop_requested,
            trial_class=trial_class,
        )
        return events, read_outcomes(task.trials_dir, 0.0)

    return run


def contents(trial_dir: Path) -> dict[str, tuple[str, int]]:
    files = [trial_dir / name for name in ("metrics.jsonl", "model.safetensors", "config.yaml")]
    return {f.name: (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


@pytest.fixture(scope="module")
def plain(carry_out, tmp_path_factory):
    """Four trials without a scheduler."""
    task = tiny_task(tmp_path_factory.mktemp("plain"))
    return task, *carry_out(task)


def test_every_trial_trains_its_own_values_to_the_end(plain):
    task, events, outcomes = plain
    assert [outcome.number for outcome in outcomes] == [0, 1, 2, 3]
    assert all(outcome.status == "finished" and outcome.epochs == 4 for outcome in outcomes)
    for number in range(4):
        of_trial = [event[1:] for event in events if event[0] == number]
        assert of_trial == [(None, "running"), *((e, "running") for e in (1, 2, 3, 4)), (None, "finished")]
    assert not (task.trials_dir.parent / ".ray").exists()


def test_actors_are_reused_and_two_trials_run_at_a_time(plain):
    task, _, outcomes = plain
    assert trial_slots(task.base, [{"CPU": 2.0}], use_gpu=False) == 2
    spans = [(o.elapsed_s[0], o.elapsed_s[-1]) for o in outcomes]
    assert max(end for _, end in spans) - min(start for start, _ in spans) < 6  # a new actor takes longer


def test_study_carried_out_again_replays_and_trains_nothing(plain, carry_out):
    task, _, before = plain
    files = {o.run_dir: contents(Path(o.run_dir)) for o in before}
    events, after = carry_out(task)
    assert after == before
    assert {status for _, epoch, status in events if epoch} == {"replayed"}
    assert {o.run_dir: contents(Path(o.run_dir)) for o in after} == files


def test_failures_are_noted_and_do_not_stop_the_others(carry_out, tmp_path):
    points = [
        {"recipe.base_lr": 0.1, "recipe.global_batch_size": 32},
        {"recipe.base_lr": 1e30, "recipe.global_batch_size": 32},  # not a number
        {"recipe.base_lr": 0.1, "recipe.global_batch_size": 4096},  # more than there are images
        {"recipe.base_lr": 0.1, "recipe.global_batch_size": 16},
    ]
    task = tiny_task(tmp_path, points=points, recipe__epochs=2)
    events, outcomes = carry_out(task)
    assert [o.status for o in outcomes] == ["finished", "failed", "failed", "finished"]
    assert "lower recipe.base_lr" in (outcomes[1].reason or "")
    assert "recipe.global_batch_size is 4096" in (outcomes[2].reason or "")
    assert "NonFiniteError" in (Path(outcomes[1].run_dir) / "log.txt").read_text()
    assert [event for event in events if event[2] == "failed"] == [(1, None, "failed"), (2, None, "failed")]


def memory_fails(trial_class, numbers):
    """Return a trial class whose trials of these numbers run out of memory in their second epoch."""

    class SmallMemory(trial_class):
        def train_epochs(self, job):
            for record in super().train_epochs(job):
                yield record
                if self._number in numbers:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    return SmallMemory


def test_out_of_memory_fails_its_trial_only(carry_out, tmp_path):
    from raytricks.cluster.tune.trial import OneWorkerTrial

    task = tiny_task(tmp_path, num_trials=3, recipe__epochs=2)
    _, outcomes = carry_out(task, trial_class=memory_fails(OneWorkerTrial, {1}))
    assert [o.status for o in outcomes] == ["finished", "failed", "finished"]
    assert outcomes[1].reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"


def test_all_failed_is_no_error_of_the_engine(carry_out, tmp_path):
    task = tiny_task(tmp_path, num_trials=2, points=[{"recipe.base_lr": 1e30, "recipe.global_batch_size": 32}] * 2)
    _, outcomes = carry_out(task)
    assert [o.status for o in outcomes] == ["failed", "failed"] and all(o.score is None for o in outcomes)


def test_asha_stops_the_worse_trials_at_its_rungs_past_the_warmup(carry_out, tmp_path):
    lrs = {"recipe.base_lr": {"kind": "loguniform", "low": 1e-7, "high": 1.0}}
    task = tiny_task(
        tmp_path,
        num_trials=8,
        num_train=320,
        points=[{"recipe.base_lr": lr} for lr in (0.2, 1e-7, 0.3, 1e-7, 2e-7, 1e-7, 0.4, 1e-7)],
        tune__space=lrs,
        tune__scheduler="asha",
        tune__reduction_factor=2,
        recipe__epochs=6,
        tricks__warmup__epochs=1.0,
        model__norm="group",
    )
    assert rungs(task.base) == (2, 4)
    _, outcomes = carry_out(task)
    stopped = [o for o in outcomes if o.status == "stopped"]
    assert stopped and {o.epochs for o in stopped} <= {2, 4}
    assert {o.reason for o in stopped} <= {"stopped by asha at epoch 2", "stopped by asha at epoch 4"}
    assert all(o.epochs == 6 for o in outcomes if o.status == "finished")
    best = max((o for o in outcomes if o.score is not None), key=lambda o: o.score or 0)
    assert best.number in (0, 2, 6)
    _, again = carry_out(task)
    assert again == outcomes


@pytest.mark.parametrize("name", ["tune_three_knobs", "tune_digits"])
def test_every_sampled_value_reaches_its_run(carry_out, tmp_path, repository, name):
    import numpy as np

    space = load_config(repository / "configs" / f"{name}.yaml").config.tune.space
    task = tiny_task(
        tmp_path,
        num_trials=4,
        num_train=540,
        recipe__epochs=1,
        tune__space={key: kind.model_dump() for key, kind in space.items()},
    )
    rng = np.random.default_rng(1)
    points = (default_values(task.base), *(sample_values(task.base, rng) for _ in range(3)))
    task = replace(task, points=points)
    _, outcomes = carry_out(task)
    assert [o.status for o in outcomes] == ["finished"] * 4, outcomes
    default = flatten(load_config(Path(outcomes[0].run_dir) / "config.yaml").config)
    for outcome, point in zip(outcomes, points, strict=True):
        config = flatten(load_config(Path(outcome.run_dir) / "config.yaml").config)
        assert {key: config[key] for key in space} == point == outcome.values
        assert {k: v for k, v in config.items() if k not in space} == {
            k: v for k, v in default.items() if k not in space
        }
    for key in space:
        assert len({point[key] for point in points}) > 1, f"{key} was drawn alike"


def test_killed_actor_goes_on_from_its_own_files(carry_out, tmp_path):
    killed = []

    def kill(number, record, status):
        if record and record["epoch"] == 2 and number == 1 and not killed:
            killed.append(number)
            kill_trial(trial_directory(task.trials_dir, 1))

    task = tiny_task(tmp_path, num_trials=2, num_train=600, recipe__epochs=5)
    events, outcomes = carry_out(task, react=kill)
    assert killed and [o.status for o in outcomes] == ["finished", "finished"]
    assert (1, 2, "replayed") in events
    trained = [epoch for number, epoch, status in events if number == 1 and epoch and status == "running"]
    assert trained == [1, 2, 3, 4, 5] or trained == [1, 2, 3, 3, 4, 5]


def kill_trial(trial_dir: Path) -> None:
    """Kill the process that trains a trial: the one that holds its lock."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = [fd.readlink() for fd in (process / "fd").iterdir()]
        except OSError:
            continue
        if trial_dir / ".lock" in held and int(process.name) != os.getpid():
            os.kill(int(process.name), signal.SIGKILL)
            return
    raise AssertionError("nobody trains it")


def test_trial_whose_process_keeps_dying_is_given_up(carry_out, tmp_path):
    from raytricks.cluster.tune.trial import OneWorkerTrial

    class Dies(OneWorkerTrial):
        def train_epochs(self, job):
            if self._number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().train_epochs(job)

    task = tiny_task(tmp_path, num_trials=2, recipe__epochs=2, hardware__max_restarts=1)
    _, outcomes = carry_out(task, trial_class=Dies)
    assert [o.status for o in outcomes] == ["finished", "failed"]
    assert "its process failed 2 times" in (outcomes[1].reason or "")


def test_stop_request_ends_promptly_and_the_rest_goes_on_later(carry_out, tmp_path):
    task = tiny_task(tmp_path, num_trials=4, num_train=900, recipe__epochs=6)
    seen = threading.Event()

    def react(number, record, status):
        if record and record["epoch"] == 3:
            seen.set()

    started = []

    def stop() -> int:
        if seen.is_set() and not started:
            started.append(time.monotonic())
        return signal.SIGTERM if started else 0

    with pytest.raises(InterruptedRun) as stopped:
        carry_out(task, react=react, stop_requested=stop)
    assert time.monotonic() - started[0] < 10 and stopped.value.exit_code == 143
    interrupted = read_outcomes(task.trials_dir, 0.0)
    assert "unfinished" in {o.status for o in interrupted} and "stopped" not in {o.status for o in interrupted}
    finished = [o for o in interrupted if o.status == "finished"]
    _, outcomes = carry_out(task)
    assert [o.status for o in outcomes] == ["finished"] * 4
    assert [o for o in outcomes if o.number in {f.number for f in finished}] == finished


def test_deadline_lets_only_the_first_trial_begin(carry_out, tmp_path):
    task = replace(tiny_task(tmp_path, num_trials=3, recipe__epochs=2), deadline=time.time() - 1)
    _, outcomes = carry_out(task)
    assert [o.status for o in outcomes] == ["finished", "unfinished", "unfinished"]
    assert outcomes[1].reason == "the time budget was used up"


def test_trial_that_never_fits_is_refused(carry_out, tmp_path):
    with pytest.raises(ClusterError, match="the cluster has"):
        carry_out(tiny_task(tmp_path, hardware__cpus_per_worker=64))
    assert not (tmp_path / "trials").exists()


def test_sampler_that_cannot_go_with_the_scheduler_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="set tune.sampler=random"):
        check_search(tiny_task(tmp_path, tune__sampler="optuna", tune__scheduler="pbt").base)


def test_rungs_are_those_of_ray_tunes_schedulers(cluster):
    from raytricks.cluster.tune.schedulers import make_scheduler

    for scheduler in ("asha", "hyperband"):
        for epochs in (2, 5, 6, 9, 12, 27, 30, 60, 81, 120):
            for factor in (2, 3, 4):
                settings = {"data.source": "digits", "recipe.epochs": epochs, "tricks.warmup.epochs": 0.5}
                tune = {"tune.reduction_factor": factor, "tune.scheduler": scheduler}
                config = load_config(None, settings | tune).config
                theirs = judged_by(make_scheduler(SimpleNamespace(base=config)), first_rung(config))  # type: ignore[arg-type]
                assert tuple(epoch for epoch in theirs if epoch < epochs) == rungs(config)


def judged_by(scheduler, first: int) -> list[int]:
    """Return the epochs after which a scheduler of Ray Tune compares trials."""
    if hasattr(scheduler, "_brackets"):
        return sorted(epoch for epoch, _ in scheduler._brackets[0]._rungs)
    judged = set()
    for index in range(scheduler._s_max_1):
        if scheduler._get_r0(index):
            bracket = scheduler._create_bracket(index)
            while bracket._halves:
                judged.add(first - 1 + bracket._cumul_r)
                bracket.successive_halving("val_top1", 1.0)
    return sorted(judged)


def test_optuna_numbers_its_trials_and_goes_on_with_the_same(carry_out, tmp_path):
    default = {"recipe.base_lr": 5.0, "recipe.global_batch_size": 32}  # lies outside of what is searched
    task = tiny_task(tmp_path, num_trials=6, points=[default], tune__sampler="optuna", tune__scheduler="asha")
    _, outcomes = carry_out(task)
    assert [o.number for o in outcomes] == list(range(6)) and outcomes[0].values == default
    lrs = [o.values["recipe.base_lr"] for o in outcomes[1:]]
    assert len(set(lrs)) == 5 and all(0.01 <= lr <= 1 for lr in lrs)
    assert {o.values["recipe.global_batch_size"] for o in outcomes} <= {16, 32}
    assert all(o.status in ("finished", "stopped") for o in outcomes)
    for number in (2, 5):
        shutil.rmtree(trial_directory(task.trials_dir, number))
    _, again = carry_out(task)
    kept = [o for o in outcomes if o.number not in (2, 5)]
    assert [o for o in again if o.number not in (2, 5)] == kept and len(again) == 6
    more, _ = carry_out(replace(task, num_trials=8))
    assert {number for number, _, _ in more} == set(range(8))


def test_hyperband_pauses_trials_and_takes_the_better_ones_on(carry_out, tmp_path):
    task = tiny_task(
        tmp_path,
        num_trials=8,
        num_train=320,
        recipe__epochs=8,
        tune__scheduler="hyperband",
        tune__reduction_factor=2,
        tricks__warmup__epochs=1.0,
    )
    _, outcomes = carry_out(task)
    assert {o.status for o in outcomes} == {"finished", "stopped"}
    judged = rungs(task.base)
    assert judged[0] >= 2
    for outcome in outcomes:
        assert outcome.epochs == 8 if outcome.status == "finished" else outcome.epochs in judged
        assert outcome.status == "finished" or outcome.reason == f"stopped by hyperband at epoch {outcome.epochs}"
    _, again = carry_out(task)
    assert again == outcomes


def test_hyperband_goes_on_when_the_last_trial_of_a_rung_fails(carry_out, tmp_path):
    """Trials 8 to 13 are a bracket that is judged after epochs 2 and 4."""
    from raytricks.cluster.tune.trial import OneWorkerTrial

    class LastFails(OneWorkerTrial):
        def train_epochs(self, job):
            for record in super().train_epochs(job):
                others = [trial_directory(self._task.trials_dir, n) for n in range(8, 14) if n != self._number]
                if self._number >= 8 and record["epoch"] > 2 and sum(len(epoch_records(o)) >= 4 for o in others) == 2:
                    with suppress(FileExistsError):  # two that run side by side may both be the last
                        (Path(self._task.trials_dir).parent / "planted").open("x").close()
                        raise ValueError("planted")
                yield record

    settings = {"recipe__epochs": 8, "tune__scheduler": "hyperband", "tune__reduction_factor": 2}
    points = [{"recipe.base_lr": 0.1, "recipe.global_batch_size": 32}] * 14
    _, outcomes = carry_out(tiny_task(tmp_path, num_trials=14, points=points, **settings), trial_class=LastFails)
    assert [o.reason for o in outcomes if o.status == "failed"] == ["ValueError: planted"]
    assert not [o for o in outcomes if o.status == "unfinished"]


def best_of(outcomes):
    return max((o.score, -o.number) for o in outcomes if o.score is not None)


@pytest.mark.slow
def test_study_whose_driver_is_killed_three_times_ends_like_one_that_was_not(carry_out, tmp_path):
    settings = ["num_trials=6", "recipe__epochs=6"]
    whole = tiny_task(tmp_path / "whole", num_trials=6, num_train=400, recipe__epochs=6)
    _, expected = carry_out(whole)
    task = replace(whole, trials_dir=tmp_path / "cut" / "trials")
    script = Path(__file__).with_name("tiny_study.py")
    finished: dict[str, dict] = {}
    for wanted in (0, 2, 4):  # finished trials at the time of the kill
        command = [sys.executable, str(script), str(tmp_path / "cut"), *settings]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                outcomes = read_outcomes(task.trials_dir, 0.0) if task.trials_dir.exists() else ()
                num_finished = sum(o.status == "finished" for o in outcomes)
                if num_finished >= wanted and any(o.status == "unfinished" and o.epochs for o in outcomes):
                    break
                time.sleep(0.01)
            assert process.poll() is None, "ended before it could be killed"
            process.kill()
        for trial_dir, before in finished.items():
            assert contents(Path(trial_dir)) == before
        outcomes = read_outcomes(task.trials_dir, 0.0)
        finished = {o.run_dir: contents(Path(o.run_dir)) for o in outcomes if o.status == "finished"}
        assert len(finished) < 6
    _, outcomes = carry_out(task)
    for trial_dir, before in finished.items():
        assert contents(Path(trial_dir)) == before
    assert [o.status for o in outcomes] == ["finished"] * 6
    assert [o.top1 for o in outcomes] == [o.top1 for o in expected]
    assert best_of(outcomes) == best_of(expected)


def test_state_of_each_trial_names_its_point(plain):
    task, _, outcomes = plain
    for outcome, lr in zip(outcomes, LRS[:4], strict=True):
        state = read_state(Path(outcome.run_dir))
        assert state is not None and state.root_values == task.points[outcome.number]
        assert outcome.values["recipe.base_lr"] == lr
