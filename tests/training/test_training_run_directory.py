"""What a run leaves on disk, and what it does not."""

import json
from pathlib import Path
import shutil
import signal

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import raytricks
from raytricks.config import load_config
from raytricks.errors import (
    CheckpointError,
    ClusterError,
    ConfigError,
    DataError,
    InterruptedRun,
    NonFiniteError,
    RaytricksError,
)
from raytricks.plan import plan_run
from raytricks.report.progress import Reporter
from raytricks.run import device_type_of
from raytricks.training.auto_micro_batch import LIMITS_FILE
from raytricks.training.fencing import begin_launch, require_visible
from raytricks.training.run_directory import create_run_directory

SETTINGS = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 2,
    "recipe.global_batch_size": 256,
    "tricks.warmup.epochs": 1.0,
    "hardware.precision": "fp32",
    "hardware.cpus_per_worker": 1,
    "logging.tensorboard": False,
}


@pytest.fixture
def digit_folder(tmp_path) -> Path:
    """Twelve PNGs of each of two digits."""
    digits = load_digits()
    for label in (0, 1):
        place = tmp_path / "digits" / f"digit{label}"
        place.mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:12]):
            Image.fromarray((image * 15).astype(np.uint8)).save(place / f"{number}.png")
    return tmp_path / "digits"


def settings(tmp_path: Path, **changes) -> dict:
    return SETTINGS | {"output_dir": str(tmp_path / "runs")} | changes


def small(tmp_path: Path, **changes) -> dict:
    of_folder = {"data.source": "auto", "recipe.global_batch_size": 4, "logging.every_steps": 1}
    return settings(tmp_path, **of_folder, **changes)


def run_directories(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs").glob("*"))


@pytest.fixture
def run_dir(tmp_path) -> Path:
    result = raytricks.train(None, settings(tmp_path, name="first"))
    assert result is not None
    return result.run_dir


def test_run_directory_holds_what_it_promises(run_dir):
    files = sorted(p.name for p in run_dir.iterdir())
    assert [name for name in files if name[0] == "."] == [".has-saved", ".launch"]
    promised = "answers.safetensors checkpoints config.yaml log.txt metrics.jsonl model.json model.safetensors "
    assert files[2:] == (promised + "model_best.safetensors run.json").split()
    assert sorted(p.name for p in (run_dir / "checkpoints").iterdir()) == ["step-00000005", "step-00000010"]
    log = (run_dir / "log.txt").read_text()
    assert "epoch 2/2" in log and "model.safetensors" in log and "\x1b" not in log


def test_run_file_says_what_the_run_was_made_of(run_dir):
    run = json.loads((run_dir / "run.json").read_text())
    assert run["seed"] == 0
    assert run["recipe"]["total_steps"] == 10
    assert run["recipe"]["lr_at"]["peak"] == pytest.approx(0.1)
    assert run["data"]["num_train"] == 1438 and run["data"]["num_evaluation"] == 359
    assert run["data"]["class_names"] == list("0123456789")
    assert run["model"]["parameters"] > 1000 and run["model"]["macs"] > 1000
    [launch] = run["launches"]
    assert launch["execution"]["images_per_worker"] == 256 and launch["resumed"] is False
    assert {"raytricks", "torch", "ray", "numpy"} <= set(launch["versions"])
    assert {"started_at", "argv", "host", "python", "num_cpus", "git"} <= set(launch)


def test_run_config_repeats_the_run(run_dir, tmp_path):
    first = plan_run(None, settings(tmp_path, name="first"))
    assert load_config(run_dir / "config.yaml").config == first.config
    again = plan_run(run_dir / "config.yaml", ["name=again"])
    assert again.recipe == first.recipe
    assert again.config.model_copy(update={"name": "first"}) == first.config


def test_run_config_has_an_absolute_data_path(digit_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = raytricks.train("digits", small(tmp_path, name="run"))
    assert result is not None
    saved = load_config(result.run_dir / "config.yaml").config
    assert saved.data.path == str(digit_folder)
    monkeypatch.chdir("/")
    assert plan_run(result.run_dir / "config.yaml").stats.num_train == 20


def test_run_name_defaults_to_data_and_time(tmp_path):
    result = raytricks.train(None, settings(tmp_path, **{"recipe.epochs": 1, "tricks.warmup.epochs": 0.0}))
    assert result is not None
    assert result.run_dir.parent == tmp_path / "runs"
    assert result.run_dir.name.startswith("digits-20")


def test_run_that_exists_is_refused_with_its_progress(run_dir, tmp_path):
    before = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"first exists \(2 of 2 epochs\); choose another name$"):
        raytricks.train(None, settings(tmp_path, name="first"))
    (tmp_path / "runs" / "other").mkdir()
    with pytest.raises(ConfigError, match=r"other exists \(not a run\); choose another name$"):
        raytricks.train(None, settings(tmp_path, name="other"))
    assert (run_dir / "metrics.jsonl").read_bytes() == before
    assert (tmp_path / "runs" / "other").is_dir()
    (run_dir / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="choose another name, or go on with `raytricks train --resume .*first`"):
        raytricks.train(None, settings(tmp_path, name="first"))


def test_run_directory_as_images_is_refused_with_what_was_meant(run_dir):
    with pytest.raises(ConfigError, match=r"is a run, not a directory of images; go on with `--resume"):
        plan_run(run_dir)


def test_run_in_a_place_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    changes = {"output_dir": str(tmp_path / "file"), "name": "x"}
    with pytest.raises(ConfigError, match=r"file/x cannot be made \(.*\); set output_dir"):
        raytricks.train(None, SETTINGS | changes)


def test_cuda_without_a_gpu_here_is_for_workers_that_may_have_some(monkeypatch):
    """A search trains its trials on workers, whatever `workers` says; the driver's machine needs no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = load_config(None, SETTINGS | {"hardware.device": "cuda"}).config
    assert device_type_of(config, on_ray=True) == "cuda"
    with pytest.raises(ConfigError, match="set workers=1 or more for the GPUs of a cluster"):
        device_type_of(config)


def test_dry_run_writes_nothing(tmp_path):
    assert raytricks.train(None, settings(tmp_path), dry_run=True) is None
    assert not (tmp_path / "runs").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def test_run_leaves_nothing_when_an_image_cannot_be_decoded(digit_folder, tmp_path):
    truncate(digit_folder / "digit0" / "3.png")
    with pytest.raises(DataError, match="3.png"):
        raytricks.train(digit_folder, small(tmp_path))
    assert run_directories(tmp_path) == []


def test_run_that_leaves_nothing_leaves_a_directory_of_runs_that_was_there(digit_folder, tmp_path):
    """It may be a mount point."""
    truncate(digit_folder / "digit0" / "3.png")
    for was_there in (False, True):
        runs = tmp_path / "own"
        if was_there:
            runs.mkdir()
        with pytest.raises(DataError):
            raytricks.train(digit_folder, small(tmp_path) | {"output_dir": str(runs)})
        assert runs.exists() == was_there


def test_run_leaves_nothing_when_the_first_step_is_not_finite(digit_folder, tmp_path):
    changes = {"recipe.base_lr": 1e30, "tricks.warmup.epochs": 0.0, "recipe.epochs": 1}
    with pytest.raises(NonFiniteError, match="step 2"):
        raytricks.train(digit_folder, small(tmp_path, **changes) | {"logging.every_steps": 20})
    assert run_directories(tmp_path) == []


def test_run_out_of_memory_in_its_first_update_stays_with_what_fits(digit_folder, tmp_path):
    """Its message promises that a resume begins with fewer images at once."""

    def exhaust(*_):
        raise torch.OutOfMemoryError("no memory for momentum")

    wanted = small(tmp_path, name="first") | {"logging.every_steps": 20}
    handle = register_optimizer_step_pre_hook(exhaust)
    try:
        with pytest.raises(RaytricksError, match="a restart or resume takes it by itself"):
            raytricks.train(digit_folder, wanted)
    finally:
        handle.remove()
    run_dir = tmp_path / "runs" / "first"
    limit = json.loads((run_dir / LIMITS_FILE).read_text())["training"]
    result = raytricks.train(resume=run_dir)
    assert result is not None
    notes = [record["text"] for record in result.records if record["kind"] == "note"]
    assert f"images at once: at most {limit} in training, as found before" in notes


def test_run_with_records_stays_when_it_fails(digit_folder, tmp_path):
    changes = {"recipe.base_lr": 1e30, "tricks.warmup.epochs": 0.0, "recipe.epochs": 1, "name": "diverged"}
    with pytest.raises(NonFiniteError):
        raytricks.train(digit_folder, small(tmp_path, **changes))
    assert [p.name for p in run_directories(tmp_path)] == ["diverged"]


class StopAtOnce(Reporter):
    """Asks to stop after the first step."""

    def record(self, record: dict) -> None:
        super().record(record)
        signal.raise_signal(signal.SIGTERM)


def test_resume_that_fails_leaves_the_run_even_without_any_work(digit_folder, tmp_path):
    with pytest.raises(InterruptedRun):
        raytricks.train(digit_folder, small(tmp_path, name="stopped"), reporter=StopAtOnce("quiet"))
    stopped = tmp_path / "runs" / "stopped"
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "metrics.jsonl").write_text("")
    truncate(digit_folder / "digit1" / "5.png")
    with pytest.raises(DataError, match="5.png"):
        raytricks.train(resume=stopped)
    assert (stopped / "config.yaml").is_file()


def test_resumed_run_lists_both_launches(digit_folder, tmp_path):
    with pytest.raises(InterruptedRun):
        raytricks.train(digit_folder, small(tmp_path, name="stopped"), reporter=StopAtOnce("quiet"))
    result = raytricks.train(resume=tmp_path / "runs" / "stopped")
    assert result is not None
    run = json.loads((result.run_dir / "run.json").read_text())
    assert [launch["resumed"] for launch in run["launches"]] == [False, True]
    log = (result.run_dir / "log.txt").read_text()
    assert log.count("\nrecipe") == 2 and "resumed from step-00000001" in log


def test_signal_handlers_are_put_back(digit_folder, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    raytricks.train(digit_folder, small(tmp_path))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_resume_auto_starts_goes_on_and_then_has_nothing_left_to_do(tmp_path):
    wanted = settings(tmp_path, name="again")

    class StopFirst(Reporter):
        def record(self, record: dict) -> None:
            if record["kind"] == "epoch" and record["epoch"] == 1:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRun):
        raytricks.train(None, wanted, resume="auto", reporter=StopFirst("quiet"))
    finished = raytricks.train(None, wanted | {"logging.every_steps": 7}, resume="auto")
    assert [r["epoch"] for r in finished.records if r["kind"] == "epoch"] == [1, 2]
    model = finished.run_dir / "model.safetensors"
    written = model.stat().st_mtime_ns
    again = raytricks.train(None, wanted, resume="auto")
    assert again.records == finished.records and model.stat().st_mtime_ns == written


@pytest.mark.parametrize("changes", [{"recipe.base_lr": 0.2}, {"seed": 5}], ids=str)
def test_resume_auto_refuses_another_recipe(run_dir, tmp_path, changes):
    (run_dir / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=f"{next(iter(changes))}: cannot change from"):
        raytricks.train(None, settings(tmp_path, name="first") | changes, resume="auto")


def test_resume_auto_needs_a_name_and_takes_no_directory_that_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="add name=NAME"):
        raytricks.train(None, settings(tmp_path), resume="auto")
    mine = tmp_path / "runs" / "mine"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("not a run")
    with pytest.raises(ConfigError, match="no run .* choose another name"):
        raytricks.train(None, settings(tmp_path, name="mine"), resume="auto")
    assert (mine / "thesis.txt").read_text() == "not a run"


def test_resume_auto_starts_afresh_what_was_killed_before_it_had_begun(run_dir, tmp_path):
    for path in run_dir.iterdir():
        if path.name not in ("config.yaml", ".launch"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = raytricks.train(None, settings(tmp_path, name="first"), resume="auto")
    assert result.last["epoch"] == 2


def test_run_whose_checkpoints_are_gone_is_not_begun_again_silently(run_dir):
    (run_dir / "model.safetensors").unlink()
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(CheckpointError, match="gone or empty.*put it back, or start a new run"):
        raytricks.train(resume=run_dir)


@pytest.mark.parametrize(("kind", "missing"), [("step", "checkpoints"), ("epoch", "model.safetensors")])
def test_launch_of_a_run_that_was_started_again_elsewhere_stops_without_saving(tmp_path, kind, missing):
    run_dir = tmp_path / "runs" / "taken"

    class TakenOver(Reporter):
        def record(self, record: dict) -> None:
            if record["kind"] == kind:
                begin_launch(run_dir)

    with pytest.raises(RaytricksError, match="started again elsewhere"):
        raytricks.train(None, settings(tmp_path, name="taken"), reporter=TakenOver("quiet"))
    assert not (run_dir / missing).exists()


def test_run_directories_of_one_second_have_names_of_their_own(tmp_path):
    config = load_config(None, settings(tmp_path)).config.model_copy(update={"name": None})
    made = [create_run_directory(config, "digits") for _ in range(5)]
    assert len(set(made)) == 5 and all(path.is_dir() for path in made)


def test_worker_that_sees_another_directory_names_the_remedy(tmp_path):
    launch = begin_launch(tmp_path)
    require_visible(tmp_path, launch, host="node7")
    (tmp_path / "other").mkdir()
    with pytest.raises(ClusterError, match="on node7 is not the directory .* set output_dir to storage"):
        require_visible(tmp_path / "other", launch, host="node7", wait_s=0)


def test_resume_finds_data_that_was_moved_and_refuses_other_data(digit_folder, tmp_path):
    wanted = small(tmp_path, name="moved") | {"data.path": str(digit_folder)}
    finished = raytricks.train(None, wanted)
    assert finished is not None
    (finished.run_dir / "model.safetensors").unlink()
    moved = tmp_path / "elsewhere"
    shutil.copytree(digit_folder, moved)
    result = raytricks.train(None, wanted | {"data.path": str(moved)}, resume="auto")
    assert result is not None and load_config(result.run_dir / "config.yaml").config.data.path == str(moved)
    (finished.run_dir / "model.safetensors").unlink()
    next(moved.rglob("*.png")).unlink()
    with pytest.raises(DataError, match="has changed"):
        raytricks.train(None, wanted | {"data.path": str(moved)}, resume="auto")
