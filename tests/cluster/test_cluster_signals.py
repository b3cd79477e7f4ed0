"""Signals to a command that started Ray itself, as a user's terminal or scheduler sends them."""

from pathlib import Path
import signal
import subprocess
import sys

import pytest

from raytricks.training.records import read_records

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_sigterm_to_the_driver_saves_and_ends_with_143(tmp_path, repository):
    """`ray.init` installs its own SIGTERM handler, which would abort the process without a checkpoint."""
    command = [
        str(Path(sys.executable).with_name("raytricks")),
        "train",
        str(repository / "configs" / "digits.yaml"),
        "workers=1",
        "name=stopped",
        f"output_dir={tmp_path}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 143, errors
    assert f"raytricks train --resume {tmp_path / 'stopped'}" in errors
    records = read_records(tmp_path / "stopped" / "metrics.jsonl")
    newest = sorted((tmp_path / "stopped" / "checkpoints").iterdir())[-1]
    assert int(newest.name.removeprefix("step-")) >= max(r["step"] for r in records)
