"""What the README and the shipped configs say is true."""

import os
from pathlib import Path
import re
import shlex
import subprocess
import sys

from PIL import Image
import pytest
from sklearn.datasets import load_digits

from raytricks.config import load_config

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
ON_A_CLUSTER = ("raytricks submit", "raytricks jobs")
"""Commands that need one; tests/cluster/test_cluster_jobs.py has it."""
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


def commands(start: str) -> list[str]:
    """Return the README's console commands that begin with a word."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(start) and not line.startswith(ON_A_CLUSTER)]


def rule_of(target: str) -> list[str]:
    """Return the commands that make would run for a target."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "-n", target]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory in which the README's commands work: the configs and a folder of photos."""
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:120], digits.target[:120], strict=True)):
        if label < 3:
            path = tmp_path / "photos" / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15.9).astype("uint8")).save(path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("command", commands("raytricks"))
def test_readme_command_works(command: str, folder: Path):
    arguments = [str(Path(sys.executable).with_name("raytricks")), *shlex.split(command)[1:]]
    if command == "raytricks train photos/":  # 60 epochs by default: the README's command, shortened
        arguments += ["recipe.epochs=2", "tricks.warmup.epochs=1"]
    if command.startswith("raytricks tune photos/"):
        arguments += ["recipe.epochs=2", "tricks.warmup.epochs=0", "tune.num_trials=3", "tune.retrain_seeds=1"]
    if " runs/first" in command and not (folder / "runs" / "first").exists():
        short = ["recipe.epochs=2", "tricks.warmup.epochs=1"]
        assert run([arguments[0], "train", "photos/", "name=first", *short], folder).returncode == 0
    done = run(arguments, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_readme_python_example_works(folder: Path):
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    done = run([sys.executable, "-c", example[1]], folder)
    assert done.returncode == 0, done.stderr
    assert "('0', '1'" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_make_demo_reaches_its_accuracy_on_two_ray_workers(folder: Path):
    demo = rule_of("demo")[-2]
    assert demo.endswith("raytricks train configs/digits.yaml")
    done = run([str(Path(sys.executable).with_name("raytricks")), *demo.split()[1:]], folder)
    assert done.returncode == 0, done.stderr
    last = re.search(r"^last .*top-1 ([\d.]+)%", done.stdout, re.MULTILINE)
    assert last and float(last[1]) >= 98
    assert "2 Ray workers" in done.stdout
    assert "\x1b" not in done.stdout
    assert not done.stderr.strip(), "Ray's chatter reached the user"


@pytest.mark.ray
@pytest.mark.slow
def test_make_demo_tunes_and_leaves_a_config_that_trains(folder: Path):
    demo = rule_of("demo")[-1]
    assert demo.endswith("raytricks tune configs/tune_digits.yaml")
    raytricks = str(Path(sys.executable).with_name("raytricks"))
    done = run([raytricks, *demo.split()[1:], "name=study"], folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^verdict ", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout and not done.stderr.strip(), "Ray's chatter reached the user"
    study = folder / "runs" / "study"
    trials = (study / "trials.csv").read_text().splitlines()
    assert len(trials) == 1 + 8 and (study / "report.html").stat().st_size > 10**6
    assert run([raytricks, "train", str(study / "best.yaml"), "--dry-run"], folder).returncode == 0


def test_readme_make_targets_exist():
    for command in commands("make"):
        for target in command.split()[1:]:
            assert rule_of(target)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_shipped_config_is_valid_and_says_what_it_is_for(path: Path):
    load_config(path)
    opening = path.read_text().split("\n\n")[0]
    for heading in ("# Command:", "# Hardware:", "# Expected:"):
        assert heading in opening, f"{path.name} does not open with {heading}"
    assert f"configs/{path.name}" in opening


def test_readme_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [t for t in targets if not (REPOSITORY / t).exists()] == []
