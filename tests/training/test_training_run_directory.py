"""What a run leaves on disk, and what it does not."""

import json
from pathlib import Path
import shutil
import signal

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits

import raytricks
from raytricks.api import plan_run
from raytricks.config import load_config
from raytricks.errors import ConfigError, DataError, InterruptedRun, NonFiniteError
from raytricks.report.progress import Reporter

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
    assert files == ["checkpoints", "config.yaml", "log.txt", "metrics.jsonl", "model.safetensors", "run.json"]
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
    assert plan_run(result.run_dir / "config.yaml").facts.num_train == 20


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


def test_run_leaves_nothing_when_the_first_step_is_not_finite(digit_folder, tmp_path):
    changes = {"recipe.base_lr": 1e30, "tricks.warmup.epochs": 0.0, "recipe.epochs": 1}
    with pytest.raises(NonFiniteError, match="step 2"):
        raytricks.train(digit_folder, small(tmp_path, **changes) | {"logging.every_steps": 20})
    assert run_directories(tmp_path) == []


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
