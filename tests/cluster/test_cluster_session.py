"""The session: an address where nobody is, and what is left behind in the user's process."""

from pathlib import Path
import socket
import subprocess
import sys
import time

import pytest

from raytricks.cluster.checks.cluster import cluster_address

SETTINGS = [
    "data.source=digits",
    "data.horizontal_flip=false",
    "workers=1",
    "recipe.epochs=1",
    "tricks.warmup.epochs=0",
]


@pytest.mark.parametrize("command", ["train", "tune"])
def test_session_with_a_dead_address_ends_soon_and_leaves_nothing(tmp_path, monkeypatch, command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    program = str(Path(sys.executable).with_name("raytricks"))
    done = subprocess.run(
        [program, command, *SETTINGS, f"output_dir={tmp_path / 'runs'}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: nothing answers at RAY_ADDRESS=") and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_session_takes_an_empty_address_for_none(monkeypatch):
    from raytricks.cluster.session import require_reachable

    for empty in ("", " ", "local"):
        monkeypatch.setenv("RAY_ADDRESS", empty)
        assert cluster_address() is None
        require_reachable()


@pytest.mark.ray
def test_session_lets_the_users_own_ray_start_by_itself_afterwards(monkeypatch):
    code = """
import os
os.environ["RAY_ADDRESS"] = ""
from raytricks.cluster.session import ray_session
with ray_session() as resources:
    assert resources["CPU"] >= 1
import ray
assert not ray.is_initialized() and "RAY_ENABLE_AUTO_CONNECT" not in os.environ
os.environ.pop("RAY_ADDRESS")
assert ray.get(ray.remote(lambda: 3).remote()) == 3
"""
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.stderr[-2000:], time.monotonic() - started_s)
