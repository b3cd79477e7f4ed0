"""Folders that Ray cannot start with: told in one line, by a run and by `raytricks check`."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

PROGRAM = str(Path(sys.executable).with_name("raytricks"))


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("TMPDIR", "{tmp_path}/" + "x" * 80, "set RAY_TMPDIR to a shorter path"),
        ("HOME", "/proc/nohome", "HOME=/proc/nohome cannot be written"),
    ],
)
@pytest.mark.parametrize("command", ["train", "check"])
def test_folders_that_ray_cannot_use_are_one_line(tmp_path, name, value, part, command):
    value = value.format(tmp_path=tmp_path)
    if name == "TMPDIR":
        Path(value).mkdir()
    environment = {key: text for key, text in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    given = [PROGRAM, command, "data.source=digits", "workers=1", f"output_dir={tmp_path / 'runs'}"]
    done = subprocess.run(given, env=environment | {name: value}, capture_output=True, text=True, timeout=90)
    assert done.returncode == 4, done.stdout + done.stderr
    if command == "train":
        assert part in done.stderr and done.stderr.count("\n") == 1
    else:
        assert part in done.stdout + done.stderr
