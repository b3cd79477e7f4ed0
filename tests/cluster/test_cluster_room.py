"""A cluster that is busy, and one whose second node does not see the run's directory."""

from collections.abc import Iterator
from contextlib import contextmanager
import json
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest
from ray_nodes import Nodes, ray_nodes

from raytricks.training.records import read_records

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SETTINGS = [
    *("data.source=digits", "data.horizontal_flip=false", "model.name=resnet8", "model.width=8", "recipe.epochs=1"),
    *("tricks.warmup.epochs=0", "logging.tensorboard=false", "hardware.cpus_per_worker=1"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(dashboard_host="127.0.0.1") as found:
        yield found


@contextmanager
def command(nodes: Nodes, verb: str, *arguments: str) -> Iterator[subprocess.Popen]:
    """Start a command; it is ended at the end."""
    given = [str(Path(sys.executable).with_name("raytricks")), verb, *SETTINGS, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(given, env=nodes.environment, cwd=nodes.root, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def busy(nodes: Nodes) -> Iterator[None]:
    """Take all CPUs of the cluster meanwhile."""
    code = """
import ray, sys
ray.init(logging_level="ERROR", log_to_driver=False)
group = ray.util.placement_group([{"CPU": 1}] * 3)
assert group.wait(60)
print("taken", flush=True)
sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=nodes.environment, **pipes) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "taken\n"
        try:
            yield
        finally:
            holder.kill()


@pytest.mark.parametrize("given", [("train", "workers=3"), ("tune", "tune.num_trials=2")], ids=["train", "tune"])
def test_room_where_a_node_does_not_see_the_directory_is_refused_before_anything_trains(nodes, given):
    if not nodes.is_apart:
        pytest.skip("a directory apart takes the right to mount")
    started_s = time.monotonic()
    with command(nodes, *given, "output_dir=" + str(nodes.root / "apart")) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 4, errors
    assert "is not seen on" in errors and "set output_dir to storage that all nodes share" in errors
    assert "Traceback" not in errors and errors.count("\n") == 1
    assert time.monotonic() - started_s < 90


def test_room_of_a_busy_cluster_is_waited_for_with_a_line_and_a_deadline(nodes):
    with busy(nodes), command(nodes, "train", "workers=2", "hardware.wait_s=8", "output_dir=shared") as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 4, errors
    assert "waiting   for room: workers=2 with 1 CPU each; 0 of 3 CPUs are free" in output
    assert "hardware.wait_s=8" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_room_that_is_waited_for_does_not_hold_a_signal_up(nodes, number):
    with busy(nodes), command(nodes, "train", "workers=2", "output_dir=shared") as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("waiting"):
                break
        process.send_signal(number)
        sent_s = time.monotonic()
        errors = process.stderr.read()
        process.wait(30)
    assert process.returncode == 128 + number, errors
    assert time.monotonic() - sent_s < 5
    assert "stopped before the first step; nothing was saved" in errors


def test_precision_is_said_by_the_workers_where_the_driver_cannot_know_it(nodes):
    settings = ("workers=2", "hardware.precision=auto", "output_dir=shared", "name=agreed")
    with command(nodes, "train", *settings) as process:
        output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert "2 Ray workers on cpu, the precision that all of them compute" in output
    run_dir = nodes.root / "shared" / "agreed"
    notes = [record["text"] for record in read_records(run_dir / "metrics.jsonl") if record["kind"] == "note"]
    assert notes in (["precision fp32 on all workers"], ["precision bf16 on all workers"])
    assert json.loads((run_dir / "run.json").read_text())["launches"][0]["execution"]["precision"] == "auto"
