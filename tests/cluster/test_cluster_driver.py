"""Drivers that are killed: the same command again goes on, and ends with the same weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
import random
import signal
import subprocess
import sys
import time

from faults import SETTINGS, are_equal
from processes import descendants, kill_worker
import pytest

from raytricks.training.records import read_records

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]
_GONE_WITHIN_S = 30  # a process that is being started tries for 10 s and more to find its node


def command(folder: Path, name: str) -> list[str]:
    """Return the command of a run of two workers, which can be given again and again."""
    settings = SETTINGS | {"workers": 2, "name": name, "output_dir": str(folder)}
    program = str(Path(sys.executable).with_name("raytricks"))
    return [program, "train", "--quiet", *(f"{key}={value}" for key, value in settings.items()), "--resume"]


def reached(run_dir: Path) -> int:
    """Return the last step that the run has logged."""
    return max((r["step"] for r in read_records(run_dir / "metrics.jsonl")), default=0)


def has_reached(run_dir: Path, step: int) -> bool:
    """Whether the run has logged a step."""
    return reached(run_dir) >= step


def run_until(given: list[str], is_time: Callable[[], bool], act: Callable[[subprocess.Popen], None]) -> int:
    """Start the command, act on it once, and return its exit code."""
    with subprocess.Popen(given, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not is_time():
            time.sleep(0.02)
        if process.poll() is None:
            act(process)
        _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL, 128 + signal.SIGTERM), errors
    return process.returncode


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """The run that nothing befalls."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run(command(folder, "clean"), check=True)
    return folder / "clean"


def still_there(processes: dict[int, str]) -> dict[int, str]:
    """Return those of some processes that have not ended."""
    return {pid: name for pid, name in processes.items() if Path(f"/proc/{pid}").exists()}


@pytest.mark.chaos
def test_killed_driver_and_the_same_command_again_end_with_the_same_weights(clean, tmp_path, record_property):
    run_dir, again = tmp_path / "killed", 0
    places = (3, 21, 22, 48, 71)  # before the first checkpoint, around the end of an epoch, in the middle
    started: dict[int, str] = {}

    def kill(process: subprocess.Popen) -> None:
        started.update(descendants(process.pid))
        process.kill()

    for place in places:
        code = run_until(command(tmp_path, "killed"), partial(has_reached, run_dir, place), kill)
        assert code == -signal.SIGKILL
        gone_s = time.monotonic() + _GONE_WITHIN_S
        # Ray's agents of the node wait for a cluster that is gone, 60 s in Ray 2.60
        while outlived := [name for name in still_there(started).values() if "Agent" not in name]:
            assert time.monotonic() < gone_s, outlived
            time.sleep(0.5)
        logged = reached(run_dir)  # now: workers go on for a moment after their driver
        checkpoints = sorted(int(p.name[5:]) for p in (run_dir / "checkpoints").glob("step-*"))
        again += logged - (checkpoints[-1] if checkpoints else 0)
    started_s = time.monotonic()
    assert run_until(command(tmp_path, "killed"), lambda: True, lambda process: None) == 0
    took_s = time.monotonic() - started_s
    assert are_equal(run_dir, clean)
    assert not (run_dir / ".ray").exists() and not list((run_dir / "checkpoints").glob(".tmp-*"))
    assert again <= 5 * len(places)
    while still_there(started):
        assert time.monotonic() - started_s < 120, still_there(started)
        time.sleep(1)
    record_property(
        "driver SIGKILL, the same command with --resume",
        f"{len(places)} of {len(places)} went on, weights equal bit for bit; {again} steps made again; the last launch "
        f"took {took_s:.0f} s, Ray's start included",
    )


@pytest.mark.chaos
def test_chaos_of_workers_and_drivers_ends_with_the_same_weights(clean, tmp_path, record_property):
    """Seeded random SIGKILLs, until the run is done."""
    rng = random.Random(6)
    run_dir = tmp_path / "chaos"
    kills, launches, code = {"worker 0": 0, "worker 1": 0, "driver": 0}, 0, None
    while code != 0:
        launches += 1
        with subprocess.Popen(command(tmp_path, "chaos"), stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                wait_until(process, run_dir, reached(run_dir) + rng.randint(4, 14))
                victim = rng.choice(list(kills)) if sum(kills.values()) < 8 else None
                if process.poll() is not None or victim is None:
                    break
                if victim == "driver":
                    process.kill()
                    kills[victim] += 1
                    break
                kills[victim] += kill_below(process, run_dir, int(victim[-1]))
            _, errors = process.communicate()
        code = process.returncode
        assert code in (0, -signal.SIGKILL), errors
        time.sleep(1)
    notes = [r for r in read_records(run_dir / "metrics.jsonl") if r["kind"] == "note"]
    again = sum(
        int(n["text"].split(" steps are made again")[0].split()[-1]) for n in notes if "made again" in n["text"]
    )
    assert are_equal(run_dir, clean)
    assert sum(kills.values()) >= 3
    record_property(
        "chaos, seed 6",
        f"kills {kills}, launches {launches}, restarts noted in the end {len(notes)}, steps made again in these "
        f"{again}; weights equal bit for bit",
    )


def wait_until(process: subprocess.Popen, run_dir: Path, step: int) -> None:
    """Return when the run has come to a step or its process has ended."""
    while process.poll() is None and reached(run_dir) < step:
        time.sleep(0.02)


def kill_below(process: subprocess.Popen, run_dir: Path, rank: int) -> bool:
    """Kill a worker of a command; False when it has none at the moment."""
    return kill_worker(run_dir, rank, root=process.pid)


def test_sigterm_to_the_driver_saves_at_once(tmp_path, record_property):
    run_dir = tmp_path / "stopped"
    started: dict[int, str] = {}
    asked: list[float] = []

    def stop(process: subprocess.Popen) -> None:
        started.update(descendants(process.pid))
        asked.append(time.monotonic())
        process.send_signal(signal.SIGTERM)

    code = run_until(command(tmp_path, "stopped"), partial(has_reached, run_dir, 30), stop)
    took_s = time.monotonic() - asked[0]
    assert code == 128 + signal.SIGTERM
    saved = max(int(p.name[5:]) for p in (run_dir / "checkpoints").glob("step-*"))
    assert saved == reached(run_dir)
    gone_s = time.monotonic() + _GONE_WITHIN_S
    while outlived := still_there(started):
        assert time.monotonic() < gone_s, outlived
        time.sleep(0.5)
    assert started
    record_property(
        "SIGTERM to the driver", f"1 of 1: exit code 143 after {took_s:.1f} s, 0 steps lost, no process left"
    )
