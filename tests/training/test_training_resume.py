"""A resumed run is the uninterrupted run, bit for bit."""

import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file
import torch

import raytricks
from raytricks.config import load_config
from raytricks.errors import CheckpointError, ConfigError, DataError, InterruptedRun
from raytricks.report.progress import Reporter
from raytricks.training.checkpoint import save_checkpoint
from raytricks.training.evaluation import evaluate
from raytricks.training.loop import run_epochs
from raytricks.training.records import read_records
from raytricks.training.run_files import CHECKPOINTS, MODEL_FILE
from raytricks.training.worker import Worker

TIMES = ("train_s", "val_s", "data_wait_s", "images_per_second")
RECIPES = {
    "plain": {},
    "mixup and clipping": {"tricks__mixup__alpha": 0.2, "recipe__clip_norm": 1.0},
    "accumulation": {"hardware__images_per_device": 6, "model__norm": "group"},
    "dropout and mixup": {
        "model__name": "torchvision:mobilenet_v3_small",
        "model__width": None,
        "data__image_size": 32,
        "tricks__mixup__alpha": 0.2,
        "recipe__global_batch_size": 32,
    },
    "fp16": {"hardware__precision": "fp16"},
}
CASES = [(name, step) for name in RECIPES for step in (4, 6) if "dropout" not in name]  # 4: end of an epoch
CASES += [("dropout and mixup", 3)]  # 2 steps an epoch


def metrics(run_dir: Path) -> list[dict]:
    """Return all records without times and notes."""
    records = [r for r in read_records(run_dir / "metrics.jsonl") if r["kind"] != "note"]
    return [{name: value for name, value in r.items() if name not in TIMES} for r in records]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = load_file(one / MODEL_FILE), load_file(other / MODEL_FILE)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert metrics(one) == metrics(other)
    assert raytricks.load(one).metrics == raytricks.load(other).metrics


def interrupt(job, after_step: int) -> None:
    """Train until a stop is requested after a step."""
    polls = iter(range(1, 1000))
    with pytest.raises(InterruptedRun, match="stopped after (step|epoch)") as stopped:
        list(run_epochs(job, Worker(), stop_requested=lambda: signal.SIGTERM if next(polls) == after_step else 0))
    assert stopped.value.exit_code == 143


@pytest.mark.parametrize(("recipe", "after_step"), CASES)
def test_resume_is_bit_equal(make_job, recipe, after_step):
    whole, parted = (make_job(name, **RECIPES[recipe]) for name in ("whole", "parted"))
    list(run_epochs(whole, Worker()))
    interrupt(parted, after_step)
    assert not (parted.run_dir / MODEL_FILE).exists()
    list(run_epochs(parted, Worker()))
    assert_same_run(whole.run_dir, parted.run_dir)
    notes = [r["text"] for r in read_records(parted.run_dir / "metrics.jsonl") if r["kind"] == "note"]
    assert notes == [f"resumed from step-{after_step:08d}"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_resume_after_a_stop_in_the_evaluation_is_bit_equal(make_job, monkeypatch, epoch):
    """The epoch is saved by then: its steps are not made again, it is evaluated first."""
    whole, parted = make_job("whole"), make_job("parted")
    list(run_epochs(whole, Worker()))
    monkeypatch.setattr("raytricks.training.evaluation._ASK_INTERVAL_S", 0.0)
    is_evaluating = []
    monkeypatch.setattr(
        "raytricks.training.loop.evaluate", lambda *a, **k: is_evaluating.append(1) or evaluate(*a, **k)
    )
    with pytest.raises(InterruptedRun, match="stopped in the evaluation") as stopped:
        list(run_epochs(parted, Worker(), stop_requested=lambda: signal.SIGTERM * (len(is_evaluating) == epoch)))
    assert stopped.value.exit_code == 143
    epochs = [record["epoch"] for record in run_epochs(parted, Worker())]
    assert epochs == [1, 2, 3][epoch - 1 :]
    assert_same_run(whole.run_dir, parted.run_dir)
    notes = [r["text"] for r in read_records(parted.run_dir / "metrics.jsonl") if r["kind"] == "note"]
    assert notes == [f"resumed from step-{4 * epoch:08d}"]


def test_resume_after_an_evaluation_that_failed_costs_no_epoch(make_job, monkeypatch):
    whole, parted = make_job("whole"), make_job("parted")
    list(run_epochs(whole, Worker()))

    def fail(*_, **__):
        raise DataError("val/cat/7.jpg: cut off")

    monkeypatch.setattr("raytricks.training.loop.evaluate", fail)
    for _ in range(2):
        with pytest.raises(DataError):
            list(run_epochs(parted, Worker()))
        assert sorted(path.name for path in (parted.run_dir / CHECKPOINTS).iterdir()) == ["step-00000004"]
    monkeypatch.undo()
    assert [record["epoch"] for record in run_epochs(parted, Worker())] == [1, 2, 3]
    assert_same_run(whole.run_dir, parted.run_dir)


def test_resume_evaluates_a_phase_that_has_ended_with_its_own_settings(make_job, monkeypatch):
    """An epoch that ends where settings change belongs to those before the change."""
    change = [{"epoch": 1, "values": {"recipe.base_lr": 0.02}}]
    whole, parted = make_job("whole", changes=change), make_job("parted", changes=change)
    list(run_epochs(whole, Worker()))
    monkeypatch.setattr("raytricks.training.evaluation._ASK_INTERVAL_S", 0.0)
    polls = iter(range(1, 100))
    with pytest.raises(InterruptedRun, match="stopped in the evaluation"):
        list(run_epochs(parted, Worker(), stop_requested=lambda: signal.SIGTERM if next(polls) == 5 else 0))
    list(run_epochs(parted, Worker()))
    assert_same_run(whole.run_dir, parted.run_dir)


def test_resume_many_times_is_bit_equal(make_job):
    whole, parted = make_job("whole"), make_job("parted")
    list(run_epochs(whole, Worker()))
    for _ in range(11):
        interrupt(parted, 1)
    list(run_epochs(parted, Worker()))
    assert_same_run(whole.run_dir, parted.run_dir)


def test_resume_after_the_generator_was_closed(make_job):
    whole, parted = make_job("whole"), make_job("parted")
    list(run_epochs(whole, Worker()))
    epochs = run_epochs(parted, Worker())
    next(epochs)
    next(epochs)
    epochs.close()
    assert [e["epoch"] for e in run_epochs(parted, Worker())] == [3]
    assert_same_run(whole.run_dir, parted.run_dir)


def test_resume_between_the_last_epoch_and_the_model_file(make_job):
    whole, parted = make_job("whole"), make_job("parted")
    for job in (whole, parted):
        list(run_epochs(job, Worker()))
    (parted.run_dir / MODEL_FILE).unlink()
    assert list(run_epochs(parted, Worker())) == []
    assert_same_run(whole.run_dir, parted.run_dir)


def test_resume_from_the_checkpoint_before_a_damaged_one(make_job):
    whole, parted = make_job("whole"), make_job("parted")
    list(run_epochs(whole, Worker()))
    interrupt(parted, 8)
    newest = parted.run_dir / CHECKPOINTS / "step-00000008" / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    heard = []
    list(run_epochs(parted, Worker(), listener=heard.append))
    assert_same_run(whole.run_dir, parted.run_dir)
    assert "damaged checkpoint left out" in heard[0]["text"] and "step-00000008" in heard[0]["text"]


def test_resume_epoch_means_do_not_depend_on_the_log_interval(make_job):
    whole = make_job("whole", num_train=160, logging__every_steps=4)
    parted = make_job("parted", num_train=160, logging__every_steps=4)
    list(run_epochs(whole, Worker()))
    interrupt(parted, 6)
    list(run_epochs(parted, Worker()))
    epochs = [[r for r in metrics(job.run_dir) if r["kind"] == "epoch"] for job in (whole, parted)]
    assert epochs[0] == epochs[1]
    steps = [[r["step"] for r in metrics(job.run_dir) if r["kind"] == "step"] for job in (whole, parted)]
    assert sorted(set(steps[1]) - set(steps[0])) == [6]  # the stop's own line; the others are where they were


def test_resume_never_starts_over_silently(make_job):
    job = make_job()
    interrupt(job, 6)
    for state in (job.run_dir / CHECKPOINTS).glob("*/state.pt"):
        state.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        list(run_epochs(job, Worker()))


@pytest.mark.parametrize("change", ["other model", "missing keys"])
def test_resume_of_a_foreign_checkpoint_is_one_line(make_job, change):
    job, other = make_job(), make_job("other", model__width=16)
    interrupt(job, 6)
    if change == "other model":
        interrupt(other, 7)
        (other.run_dir / CHECKPOINTS / "step-00000007").rename(job.run_dir / CHECKPOINTS / "step-00000007")
    else:
        save_checkpoint(job.run_dir / CHECKPOINTS, 7, {"model": {}}, keep=2)
    with pytest.raises(CheckpointError, match="step-00000007 is of another model or version") as caught:
        list(run_epochs(job, Worker()))
    assert "\n" not in str(caught.value)


def test_seed_decides_everything(make_job):
    first, again = make_job("first"), make_job("again")
    other = make_job("other", seed=1)
    for job in (first, again, other):
        list(run_epochs(job, Worker()))
    assert_same_run(first.run_dir, again.run_dir)
    ours, theirs = load_file(first.run_dir / MODEL_FILE), load_file(other.run_dir / MODEL_FILE)
    assert not torch.equal(ours["fc.weight"], theirs["fc.weight"])
    assert metrics(first.run_dir) != metrics(other.run_dir)


# -- the same through the Python API ------------------------------------------------------

SETTINGS = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 3,
    "recipe.global_batch_size": 128,
    "tricks.warmup.epochs": 1.0,
    "hardware.precision": "fp32",
    "hardware.cpus_per_worker": 1,
    "logging.every_steps": 1,
    "logging.tensorboard": False,
    "checkpoint.every_steps": 4,
}
STEPS_PER_EPOCH = 11  # 1438 // 128


class StopAt(Reporter):
    """Ends this process, or sends it a signal, when a step is reported."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__("quiet")
        self.step, self.number = step, number

    def record(self, record: dict) -> None:
        super().record(record)
        if record["kind"] == "step" and record["step"] == self.step:
            os.kill(os.getpid(), self.number)


def settings(folder: Path, **changes) -> dict:
    return SETTINGS | {"output_dir": str(folder)} | changes


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    result = raytricks.train(None, settings(folder, name="whole"))
    assert result is not None
    return result.run_dir


@pytest.fixture
def stopped_run(tmp_path) -> Path:
    """A run that SIGTERM stopped in the second epoch."""
    with pytest.raises(InterruptedRun, match=r"stopped after step 15; saved; go on with `raytricks train --resume"):
        raytricks.train(None, settings(tmp_path, name="stopped"), reporter=StopAt(15, signal.SIGTERM))
    return tmp_path / "stopped"


def test_resume_through_the_api_is_bit_equal(whole_run, stopped_run):
    result = raytricks.train(resume=stopped_run)
    assert result is not None and result.last["epoch"] == 3
    assert_same_run(whole_run, stopped_run)


KILLED = """
import signal, sys
sys.path.insert(0, sys.argv[1])
import test_training_resume as t
from pathlib import Path
import raytricks
raytricks.train(None, t.settings(Path(sys.argv[2]), name="killed"), reporter=t.StopAt(18, signal.SIGKILL))
"""


def test_resume_after_sigkill_in_mid_epoch_is_bit_equal(whole_run, tmp_path):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [r["step"] for r in metrics(tmp_path / "killed")][-1] == 18
    result = raytricks.train(resume=tmp_path / "killed")
    assert result is not None
    notes = [r["text"] for r in result.records if r["kind"] == "note"]
    assert notes == ["resumed from step-00000016, 2 steps are made again"]
    assert_same_run(whole_run, tmp_path / "killed")


@pytest.mark.parametrize(
    "change",
    [
        {"hardware.images_per_device": 64},
        {"hardware.max_restarts": 1},
        {"checkpoint.every_steps": None, "checkpoint.keep": 1},
        {"logging.every_steps": 5},
    ],
)
def test_resume_allows_what_is_no_recipe(stopped_run, change):
    result = raytricks.train(overrides=change, resume=stopped_run)
    assert result is not None and result.last["step"] == 3 * STEPS_PER_EPOCH
    saved = load_config(stopped_run / "config.yaml").config
    section, name = next(iter(change)).split(".")
    assert getattr(getattr(saved, section), name) == next(iter(change.values()))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("recipe.epochs=5", "recipe.epochs: cannot change from 3 to 5"),
        ("recipe.base_lr=0.2", "recipe.base_lr: cannot change from 0.1 to 0.2"),
        ("seed=1", "seed: cannot change from 0 to 1"),
        ("tricks.mixup.alpha=0.2", "tricks.mixup.alpha: cannot change"),
        ("model.name=resnet14", "model.name: cannot change"),
        ("data.val_fraction=0.5", "data.val_fraction: cannot change"),
        ("name=other", "name: cannot change"),
    ],
)
def test_resume_refuses_another_recipe(stopped_run, change, named):
    before = (stopped_run / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="start a new run") as caught:
        raytricks.train(overrides=[change], resume=stopped_run)
    assert named in str(caught.value)
    assert (stopped_run / "config.yaml").read_bytes() == before


def test_resume_refuses_what_is_no_run(tmp_path, stopped_run):
    with pytest.raises(ConfigError, match="is not a run directory .*; the newest run there is .*stopped"):
        raytricks.train(resume=tmp_path)
    with pytest.raises(ConfigError, match="is not a run directory .*; did you mean .*stopped?"):
        raytricks.train(resume=stopped_run / "checkpoints")
    with pytest.raises(ConfigError, match="is not a run directory .*; did you mean .*stopped?"):
        raytricks.train(resume=stopped_run / "config.yaml")
    with pytest.raises(ConfigError, match="is not a run directory"):
        raytricks.train(resume=tmp_path / "nowhere" / "at all")


def test_resume_refuses_a_target_too(stopped_run):
    with pytest.raises(ConfigError, match="takes its config from the run; leave other.yaml out"):
        raytricks.train("other.yaml", resume=stopped_run)


def test_resume_refuses_a_finished_run(whole_run):
    with pytest.raises(ConfigError, match=r"is finished \(3 of 3 epochs\); start a new run"):
        raytricks.train(resume=whole_run)


def test_resume_refuses_other_data(stopped_run):
    text = (stopped_run / "run.json").read_text()
    (stopped_run / "run.json").write_text(text.replace('"num_train": 1438', '"num_train": 1400'))
    with pytest.raises(DataError, match="data of .* has changed: num_train was 1400, is 1438; restore it"):
        raytricks.train(resume=stopped_run)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_resume_refuses_a_damaged_run_file(stopped_run, content):
    (stopped_run / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run.json is missing or damaged"):
        raytricks.train(resume=stopped_run)
    assert (stopped_run / CHECKPOINTS).is_dir()


def test_resume_of_a_moved_run_goes_on_where_it_is(stopped_run, tmp_path):
    moved = tmp_path / "elsewhere" / "my run (2)"
    moved.parent.mkdir()
    stopped_run.rename(moved)
    with pytest.raises(InterruptedRun, match=r"--resume '.*/my run \(2\)'`"):
        raytricks.train(resume=moved, reporter=StopAt(18, signal.SIGINT))
    result = raytricks.train(resume=moved)
    assert result is not None and result.run_dir == moved
    assert not (tmp_path / "stopped").exists()
