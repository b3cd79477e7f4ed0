"""The command line as a process: what it imports, and how signals end it."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

import pytest

from raytricks.cli.main import main
from raytricks.training.records import read_records

LIGHT = """
import sys
from raytricks.cli.main import main

for arguments, code in (
    (["--help"], 0),
    (["train", "--help"], 0),
    (["version"], 0),
    (["config", "show"], 0),
    (["train", "recipe.epochs=ten"], 2),
    (["train", "nowhere"], 2),
    (["train", "data.path=nowhere"], 3),
    (["train", "data.source=digits", "recipe.global_batch_size=5000"], 3),
):
    sys.argv = ["raytricks", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == code, (arguments, ended.code)
    heavy = {"torch", "torchvision", "ray"} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""


def test_cli_help_and_early_errors_import_neither_torch_nor_ray(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


SETTINGS = ["data.source=digits", "data.horizontal_flip=false", "model.name=resnet8", "model.width=8"]
SETTINGS += ["recipe.epochs=500", "recipe.global_batch_size=64", "hardware.cpus_per_worker=1", "workers=0"]
SETTINGS += ["logging.tensorboard=false", "hardware.precision=fp32"]


def stop_after_first_epoch(folder: Path, arguments: list[str], number: int) -> tuple[int, str, str]:
    """Run until an epoch is printed, then send a signal; return exit code, stdout and stderr."""
    command = [sys.executable, "-m", "raytricks.cli.main", "train", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, **pipes) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("epoch"):
                process.send_signal(number)
                break
        out, err = process.communicate(timeout=60)
    return process.returncode, "".join(seen) + out, err


def test_cli_signals_save_and_the_printed_command_resumes(tmp_path, monkeypatch, capsys):
    code, out, err = stop_after_first_epoch(tmp_path, [*SETTINGS, "name=a"], signal.SIGINT)
    assert code == 130
    assert "Traceback" not in err and err.count("\n") == 1 and "\x1b" not in out
    assert err.startswith("stopped after") and "saved; go on with `raytricks train --resume runs/a`" in err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["raytricks", "train", "--resume", "runs/a"])
    metrics = Path("runs/a/metrics.jsonl")
    stopper = threading.Thread(target=terminate_when_longer, args=(metrics, metrics.stat().st_size + 3000))
    stopper.start()
    with pytest.raises(SystemExit) as ended:
        main()
    stopper.join()
    out, err = capsys.readouterr()
    assert ended.value.code == 143
    assert "note  resumed from step-" in out and "go on with `raytricks train --resume runs/a`" in err

    epochs = [r["epoch"] for r in read_records(metrics) if r["kind"] == "epoch"]
    assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) >= 2
    newest = max(Path("runs/a/checkpoints").iterdir())
    assert f"stopped after step {int(newest.name[5:])};" in err or f"stopped after epoch {epochs[-1]};" in err


def terminate_when_longer(path: Path, size: int) -> None:
    """Send SIGTERM to this process once it trains: before, nothing would catch it."""
    while path.stat().st_size < size:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_cli_ctrl_c_outside_the_training_is_one_word(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["raytricks", "models"])
    monkeypatch.setattr("raytricks.models.registry.list_models", lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped\n"
