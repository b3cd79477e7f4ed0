"""Parts that users bring: trained, resumed, compared, trusted, without a fork."""

import json
import os
from pathlib import Path
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
import torch

import raytricks
from raytricks.config import load_config
from raytricks.config.schemas import config_of
from raytricks.errors import ConfigError

BROUGHT = Path(__file__).with_name("brought.py")
BASE = """
data: {source: digits, horizontal_flip: false}
model: {name: resnet8, width: 8}
recipe: {epochs: 2, global_batch_size: 64}
tricks.warmup.epochs: 0.2
logging.tensorboard: false
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Keep what is trusted out of the machine's home."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Path:
    """A user's folder: a config and a file of parts; it is the current directory."""
    folder = tmp_path / "bench"
    folder.mkdir()
    shutil.copy(BROUGHT, folder / "mine.py")
    (folder / "x.yaml").write_text(BASE)
    monkeypatch.chdir(folder)
    return folder


def train(settings: dict | None = None, config: str = "x.yaml", **options):
    result = raytricks.train(config, {"output_dir": "runs"} | (settings or {}), **options)
    assert result is not None
    return result


OWN = {
    "model": {"model": {"name": "mine.py:tiny", "width": 12}},
    "loss": {"loss": {"name": "mine.py:focal", "gamma": 1.5}},
    "optimizer": {"optimizer": {"name": "mine.py:Sign", "damping": 0.5}, "recipe.base_lr": 0.02},
    "torch's optimizer": {"optimizer": {"name": "torch.optim:AdamW", "betas": [0.9, 0.99]}, "recipe.base_lr": 0.02},
    "metric": {"metrics": ["mine.py:confidence", "balanced_accuracy"]},
    "callback": {"callbacks": ["mine.py:Log"]},
    "source": {"data": {"source": "mine.py:stripes", "count": 300}},
    "source of several sizes": {"data": {"source": "mine.py:stripes", "uneven": True, "image_size": 12}},
    "trick": {"parts.sharpen": "mine.py:SHARPEN", "tricks.sharpen.amount": 0.7},
    "tracker": {"parts.lines": "mine.py:LINES", "logging.lines": "lines.txt"},
    "trick with state": {"parts.pull": "mine.py:PULL", "tricks.pull.strength": 0.1},
}


def plain(kind: str) -> dict:
    """Without the digits of the file, where a source of one's own stands in their place."""
    return OWN[kind] if "source" not in kind else OWN[kind] | {"model.name": "resnet8"}


@pytest.mark.parametrize("kind", OWN)
def test_brought_part_trains_and_is_shown_and_kept(bench, kind, capsys):
    from raytricks.report.progress import Reporter

    result = train(plain(kind) | {"name": "run"}, reporter=Reporter())
    assert 0 < result.last["val_top1"] <= 1
    shown = capsys.readouterr().out
    kept = json.loads((result.run_dir / "run.json").read_text())["parts"]
    assert len(kept) == 1 and kept[0]["spec"] in shown
    if kind == "torch's optimizer":
        assert torch.__version__.startswith(kept[0]["version"]) and kept[0]["sha256"] is None
    else:
        copy = result.run_dir / "parts" / f"{kept[0]['sha256']}.py"
        assert copy.read_bytes() == (bench / "mine.py").read_bytes()
    repeated = load_config(result.run_dir / "config.yaml").config
    assert repeated.brought and repeated == load_config(result.run_dir / "config.yaml").config


def test_brought_parts_leave_what_they_say(bench):
    result = train(OWN["metric"] | OWN["callback"])
    assert 0.1 < result.last["val_confidence"] < 1
    lines = (bench / "seen.txt").read_text().splitlines()
    assert lines == [f"{r['epoch']} {r['val_top1']}" for r in result.records if r["kind"] == "epoch"]


def test_brought_tracker_is_given_the_numbers_and_the_end(bench):
    result = train(OWN["tracker"])
    lines = (result.run_dir / "lines.txt").read_text().splitlines()
    for record in result.records:
        if record["kind"] == "epoch":
            assert f"epoch {record['step']} val_top1 {record['val_top1']}" in lines
    assert lines[-1] == "end True"


def test_brought_part_draws_change_no_others(bench):
    """Sharpening by 0 in the course of a run of erasing: the holes stay where they were."""
    erased = {"tricks.random_erasing.probability": 0.5}
    alone = train(erased | {"name": "alone"})
    beside = train(erased | {"name": "beside", "parts.sharpen": "mine.py:SHARPEN", "tricks.sharpen.amount": 1e-30})
    assert alone.last["train_objective"] == pytest.approx(beside.last["train_objective"], rel=1e-4)


def test_brought_config_pickles_and_travels_as_plain_values(bench):
    config = load_config("x.yaml", OWN["trick"] | OWN["model"] | OWN["loss"]).config
    assert pickle.loads(pickle.dumps(config)) == config
    assert config_of(json.loads(config.model_dump_json())) == config
    assert b"raytricks_parts_" not in pickle.dumps(config)  # no class of the file: its bytes


def killed_after_a_checkpoint(bench: Path, arguments: list[str]) -> Path:
    """Start a run in a process of its own and kill it without warning once it has saved."""
    command = [str(Path(sys.executable).with_name("raytricks")), "train", "x.yaml", "output_dir=runs", "name=killed"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, cwd=bench)
    run_dir = bench / "runs" / "killed"
    while not list(run_dir.glob("checkpoints/step-*")):
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return run_dir


def test_brought_trick_with_state_is_killed_and_resumed_to_the_same_bits(bench):
    settings = {"parts.pull": "mine.py:PULL", "tricks.pull.strength": 0.1, "recipe.epochs": 40}
    settings |= {"checkpoint.every_steps": 5, "hardware.cpus_per_worker": 1}  # threads change the last bits
    whole = train(settings | {"name": "whole"})
    run_dir = killed_after_a_checkpoint(bench, [f"{key}={value}" for key, value in settings.items()])
    resumed = raytricks.train(resume=run_dir)
    assert resumed is not None
    expected, found = (load_file(r.run_dir / "model.safetensors") for r in (whole, resumed))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def unfinished(bench: Path, settings: dict) -> Path:
    """Return a run whose last epoch is still to be trained."""
    result = train(settings | {"name": "run", "checkpoint.keep": 5})
    newest = max((result.run_dir / "checkpoints").iterdir(), key=lambda path: path.name)
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    (result.run_dir / "model.safetensors").unlink()
    return result.run_dir


def test_resume_refuses_code_that_has_changed_until_it_is_accepted(bench):
    run_dir = unfinished(bench, OWN["trick"])
    file = bench / "mine.py"
    file.write_text(file.read_text() + "\n# another line\n")
    done = run_command(bench, ["train", "--resume", str(run_dir)])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert re.search(r"mine.py changed \(\w{12} -> \w{12}\); restore it or --accept-changed sharpen", done.stderr)
    done = run_command(bench, ["train", "--resume", str(run_dir), "--accept-changed", "sharpen"])
    assert done.returncode == 0, done.stderr
    launches = json.loads((run_dir / "run.json").read_text())
    assert (run_dir / "parts" / f"{launches['parts'][0]['sha256']}.py").read_bytes() == file.read_bytes()


def test_resume_says_that_code_is_missing(bench):
    run_dir = unfinished(bench, OWN["trick"])
    (bench / "mine.py").unlink()
    done = run_command(bench, ["train", "--resume", str(run_dir)])
    assert done.returncode == 2 and "no file mine.py" in done.stderr and "Traceback" not in done.stderr


def run_command(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("raytricks")), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


PLANTED = """
from pathlib import Path
Path({canary!r}).write_text("the code ran")
def tiny(num_classes, in_channels, width: int = 8):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
"""


def test_code_of_a_foreign_run_is_never_imported_before_it_is_trusted(bench, tmp_path, monkeypatch):
    """Loaded, resumed, repeated, used as a teacher: the canary is never made."""
    result = train(OWN["model"] | {"name": "run"})
    foreign, canary = tmp_path / "foreign", tmp_path / "canary"
    shutil.copytree(result.run_dir, foreign)
    shutil.copytree(result.run_dir, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "model.safetensors").unlink()
    (bench / "mine.py").write_text(PLANTED.format(canary=str(canary)))  # what its names lead to on this machine
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another-user"))
    attempts = {
        "load": lambda: raytricks.load(foreign),
        "load file": lambda: raytricks.load(foreign / "model.safetensors"),
        "resume": lambda: raytricks.train(resume=tmp_path / "unfinished"),
        "repeat": lambda: raytricks.train(foreign / "config.yaml", {"name": "again"}),
        "teacher": lambda: train({"tricks.distillation.teacher": str(foreign), "name": "student"}),
    }
    for name, attempt in attempts.items():
        with pytest.raises((ConfigError, raytricks.errors.CheckpointError), match="trust"):
            attempt()
        assert not canary.exists(), name
    # a run that claims the hash of code that this user trusts, and names a file of its own
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    lying = tmp_path / "unfinished"
    (lying / "evil.py").write_text(PLANTED.format(canary=str(canary)))
    for name in ("config.yaml", "run.json"):
        text = (lying / name).read_text()
        (lying / name).write_text(text.replace(str(bench / "mine.py"), str(lying / "evil.py")))
    with pytest.raises(ConfigError, match=r"evil.py changed"):
        raytricks.train(resume=lying)
    assert not canary.exists()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another-user"))
    done = run_command(bench, ["trust", str(foreign)])
    assert done.returncode == 0 and "mine.py:tiny" in done.stdout and not canary.exists()
    trained = raytricks.load(foreign)  # with the code that the run keeps, not with what lies there now
    assert trained.model(torch.zeros(2, 1, 8, 8)).shape == (2, 10) and not canary.exists()


def test_trust_is_one_file_of_the_users_own(bench, tmp_path):
    train(OWN["model"])
    file = tmp_path / "home" / "raytricks" / "trusted"
    assert file.stat().st_mode & 0o777 == 0o600 and len(file.read_text().split()) == 1


def test_python_objects_are_parts_too(bench, monkeypatch):
    monkeypatch.syspath_prepend(str(bench))
    import mine

    seen: list[float] = []

    class Watch:
        def record(self, record):
            if record["kind"] == "epoch":
                seen.append(record["val_top1"])

    result = train({"name": "objects"}, model=mine.tiny, callbacks=[Watch(), lambda record: None])
    assert seen == [r["val_top1"] for r in result.records if r["kind"] == "epoch"]
    assert "mine" in load_config(result.run_dir / "config.yaml").config.model.name
    with pytest.raises(ConfigError, match="cannot be found by name; define it at the top of a file or module"):
        train(model=lambda num_classes: None)


def test_file_that_is_edited_is_read_again_by_the_next_run_of_the_same_process(bench):
    first = train(OWN["metric"] | {"name": "first"})
    file = bench / "mine.py"
    file.write_text(file.read_text().replace(".amax(1)", ".amax(1) * 0 + 7"))
    second = train(OWN["metric"] | {"name": "second"})
    assert first.last["val_confidence"] < 1 and second.last["val_confidence"] == 7
    kept = [json.loads((run.run_dir / "run.json").read_text())["parts"][0]["sha256"] for run in (first, second)]
    assert kept[0] != kept[1]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two installed distributions that offer parts by entry point; the module of one does not even import."""
    site = tmp_path / "site"
    for name, module in (("good_parts", BROUGHT.read_text()), ("broken_parts", "raise SystemExit('imported')\n")):
        information = site / f"{name}-1.5.dist-info"
        information.mkdir(parents=True)
        (site / f"{name}.py").write_text(module)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (information / "entry_points.txt").write_text(f"[raytricks.parts]\n{name}-sharpen = {name}:SHARPEN\n")
        (information / "top_level.txt").write_text(name)
        (information / "RECORD").write_text(f"{name}.py,,\n")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("good_parts", None)


def test_entry_point_is_imported_only_when_it_is_named(bench, packages):
    result = train({"parts.mine": "good_parts-sharpen", "tricks.mine.amount": 0.4, "name": "run"})
    (kept,) = json.loads((result.run_dir / "run.json").read_text())["parts"]
    assert (kept["spec"], kept["version"], kept["sha256"]) == ("good_parts:SHARPEN", "1.5", None)
    assert "broken_parts" not in sys.modules
    assert load_config(result.run_dir / "config.yaml").config.brought  # trusted: this user has started it
    with pytest.raises(
        ConfigError, match="no installed package has 'good_parts-sharp' .*did you mean good_parts-sharpen"
    ):
        load_config("x.yaml", {"parts.mine": "good_parts-sharp"})


def test_resume_refuses_another_version_of_a_package(bench, packages):
    run_dir = unfinished(bench, {"parts.mine": "good_parts-sharpen", "tricks.mine.amount": 0.4})
    information = packages / "good_parts-1.5.dist-info"
    information.rename(packages / "good_parts-1.6.dist-info")
    metadata = packages / "good_parts-1.6.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.5", "1.6"))
    with pytest.raises(ConfigError, match="good_parts changed|names code"):
        raytricks.train(resume=run_dir)
    resumed = raytricks.train(resume=run_dir, accept_changed=["mine"])
    assert resumed is not None


def test_part_that_carries_state_is_there_from_the_first_step_or_not_at_all(bench):
    (bench / "mine.py").write_text(
        (bench / "mine.py")
        .read_text()
        .replace('    shown="strength",\n', '    shown="strength",\n    changeable=("*",),\n')
    )
    change = {"parts.pull": "mine.py:PULL", "changes": [{"epoch": 1, "values": {"tricks.pull.strength": 0.3}}]}
    with pytest.raises(
        ConfigError, match=r"changes\[0\]: tricks.pull cannot be turned on or off in the course of a run"
    ):
        train(change)
    assert not (bench / "runs").exists()
    assert train(change | {"tricks.pull.strength": 0.1}).last["epoch"] == 2


def test_further_metrics_are_in_the_line_of_an_epoch(bench, capsys):
    from raytricks.report.progress import Reporter

    result = train(OWN["metric"], reporter=Reporter())
    shown = capsys.readouterr().out
    assert f"confidence {result.last['val_confidence']:.4f} balanced_accuracy" in shown


def test_home_that_cannot_be_written_is_said_before_anything_is_trained(bench, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot be remembered .*set XDG_DATA_HOME"):
        train(OWN["trick"])
