"""The examples are short files that run as their docstrings say."""

import os
from pathlib import Path
import shlex
import subprocess
import sys

import pytest

from raytricks.config import load_config

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def commands(example: Path) -> list[str]:
    """Return the commands in an example's docstring."""
    lines = [line.strip() for line in example.read_text().split('"""')[1].splitlines()]
    return [line for line in lines if line.startswith("raytricks train")]


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_as_it_says_and_is_named_in_the_header(example: Path, tmp_path: Path):
    (command,) = commands(example)
    words = [word for word in shlex.split(command)[1:] if not word.startswith("recipe.epochs")]
    words += ["recipe.epochs=2", "tricks.warmup.epochs=0.1", f"output_dir={tmp_path}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(tmp_path / "home")}
    raytricks = str(Path(sys.executable).with_name("raytricks"))
    done = subprocess.run(
        [raytricks, *words], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert f"examples/{example.name}:" in done.stdout and "Traceback" not in done.stderr


def test_examples_are_short_and_there_is_one_of_every_kind():
    kinds = {path.stem.removeprefix("own_") for path in EXAMPLES}
    assert kinds == {"model", "loss", "metric", "callback", "data", "trick"}
    assert all(len(path.read_text().splitlines()) <= 70 for path in EXAMPLES)
    assert load_config(REPOSITORY / "examples" / "own_trick.yaml").config.tricks.sharpen.amount == 0.7
