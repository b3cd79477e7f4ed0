"""Checkpoints that are damaged, hostile, killed in the making, or on a full disk."""

import hashlib
import json
import os
from pathlib import Path
import pickle
import subprocess
import sys

import pytest
import torch

from raytricks.errors import CheckpointError, NonFiniteError
from raytricks.files import write_atomically
from raytricks.training.checkpoint import (
    clean_temporary,
    newest_checkpoint,
    save_checkpoint,
)


def content(step: int) -> dict:
    return {"model": {"weight": torch.full((64,), float(step))}, "step": step, "epoch_totals": {"images": 1.5}}


def save(directory: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        save_checkpoint(directory, step, content(step), keep=keep)


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def test_checkpoint_round_trip(tmp_path):
    made = save_checkpoint(tmp_path / "checkpoints", 7, content(7), keep=2)
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert (found.path, found.step, found.rejected) == (made, 7, ())
    assert torch.equal(found.content["model"]["weight"], torch.full((64,), 7.0))
    assert found.content["epoch_totals"] == {"images": 1.5}


def test_checkpoint_none_at_all_is_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_checkpoint_keeps_the_newest(tmp_path):
    save(tmp_path, 1, 2, 3, 10, keep=2)
    assert names(tmp_path) == ["step-00000003", "step-00000010"]


def test_checkpoint_newest_is_by_number(tmp_path):
    save(tmp_path, 99_999_999, 100_000_000)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 100_000_000


def test_checkpoint_ignores_what_is_none(tmp_path):
    save(tmp_path, 3)
    (tmp_path / "step-00000009 (copy)").mkdir()
    (tmp_path / "step-last").write_text("")
    found = newest_checkpoint(tmp_path)
    assert found is not None and (found.step, found.rejected) == (3, ())


def test_checkpoint_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 4)
    save_checkpoint(tmp_path, 4, content(4) | {"epoch_totals": {"images": 2.0}}, keep=2)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.content["epoch_totals"] == {"images": 2.0}


def test_checkpoint_after_damaged_later_ones_is_never_thrown_away(tmp_path):
    """Resumed from step 1, since 2 and 3 are damaged: saving step 2 must not keep 3 instead of 2."""
    save(tmp_path, 1, 2, 3, keep=3)
    for step in (2, 3):
        (tmp_path / f"step-0000000{step}" / "state.pt").write_bytes(b"")
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 1
    save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000002"]
    found = newest_checkpoint(tmp_path)
    assert found is not None and (found.step, found.rejected) == (2, ())


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << (position % 8)
    path.write_bytes(data)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404</html>"),
    "flipped": lambda path: flip_bit(path, path.stat().st_size // 2),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoint_damage_is_found_and_the_previous_one_used(tmp_path, damage, file):
    save(tmp_path, 1, 2)
    DAMAGES[damage](tmp_path / "step-00000002" / file)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 1
    assert len(found.rejected) == 1
    assert "step-00000002" in found.rejected[0] and file.partition(".")[0] in found.rejected[0]


def test_checkpoint_any_flipped_bit_of_the_manifest_is_found_or_harmless(tmp_path):
    save(tmp_path, 1, 2)
    manifest = tmp_path / "step-00000002" / "manifest.json"
    whole = manifest.read_bytes()
    for position in range(0, 8 * len(whole), 3):
        data = bytearray(whole)
        data[position // 8] ^= 1 << (position % 8)
        manifest.write_bytes(data)
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert found.content["step"] == found.step  # never another step than it says
        assert found.step == 1 or not found.rejected


@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoint_all_damaged_stops_the_run(tmp_path, damage):
    save(tmp_path, 1, 2)
    for step, file in ((1, "state.pt"), (2, "manifest.json")):
        DAMAGES[damage](tmp_path / f"step-0000000{step}" / file)
    with pytest.raises(CheckpointError, match="no valid checkpoint.*step-00000002.*step-00000001.*new run"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("manifest", ["[]", "5", "null", '{"step": 2}', '{"step": 2, "files": [], "format": 1}'])
def test_checkpoint_manifest_of_another_shape_is_refused(tmp_path, manifest):
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "manifest.json").write_text(manifest)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 1


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def plant(directory: Path, step: int, write) -> None:
    """Make a checkpoint whose manifest is right, of a file that we did not write."""
    path = directory / f"step-{step:08d}"
    path.mkdir()
    write(path / "state.pt")
    data = (path / "state.pt").read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (path / "manifest.json").write_text(json.dumps({"format": 1, "step": step, "files": {"state.pt": entry}}))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's about a pickle without its own container
@pytest.mark.parametrize("kind", ["torch", "torch legacy", "pickle", "text"])
def test_checkpoint_hostile_or_foreign_state_is_refused(tmp_path, kind):
    canary = tmp_path / "canary"
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    writers = {
        "torch": lambda path: torch.save({"model": Bomb(canary)}, path),
        "torch legacy": lambda path: torch.save({"model": Bomb(canary)}, path, _use_new_zipfile_serialization=False),
        "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb(canary))),
        "text": lambda path: path.write_text("<html>404</html>"),
    }
    plant(folder, 2, writers[kind])
    found = newest_checkpoint(folder)
    assert found is not None and found.step == 1
    assert "step-00000002: state.pt" in found.rejected[0] and "\n" not in found.rejected[0]
    assert not canary.exists()


def test_checkpoint_bomb_is_one(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_checkpoint_of_non_finite_weights_is_refused(tmp_path, value):
    save(tmp_path, 1)
    bad = content(2)
    bad["model"]["weight"][3] = value
    with pytest.raises(NonFiniteError, match="step 2: weight holds NaN or infinity.*previous checkpoint is kept"):
        save_checkpoint(tmp_path, 2, bad, keep=2)
    assert names(tmp_path) == ["step-00000001"]


def test_checkpoint_integers_are_no_problem(tmp_path):
    save_checkpoint(tmp_path, 1, {"model": {"num_batches_tracked": torch.tensor(3)}, "step": 1}, keep=1)
    assert newest_checkpoint(tmp_path) is not None


def test_checkpoint_place_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written.*make it writable"):
        save(tmp_path / "checkpoints", 1)


def test_checkpoint_leftover_of_a_killed_save_is_cleaned(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".tmp-step-00000002").mkdir()
    clean_temporary(tmp_path)
    assert names(tmp_path) == ["step-00000001"]


def test_write_atomically_replaces_the_whole_file(tmp_path):
    (tmp_path / "a").write_text("old and longer")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from raytricks.training.checkpoint import newest_checkpoint, save_checkpoint

torch.set_num_threads(1)
folder, rng, last, leftovers = Path(sys.argv[1]), random.Random(0), 0, 0
for kill in range(25):
    child = os.fork()
    if child == 0:
        step = last
        while True:
            step += 1
            save_checkpoint(folder, step, {"model": {"w": torch.full((20_000,), float(step))}, "step": step}, keep=2)
    time.sleep(rng.uniform(0.005, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    leftovers += bool(list(folder.glob(".tmp-*")))
    found = newest_checkpoint(folder)
    if found is None:
        assert last == 0
        continue
    weights = found.content["model"]["w"]
    assert found.rejected == (), found.rejected
    assert found.step >= last and found.content["step"] == found.step, (found.step, last)
    assert bool((weights == found.step).all()) and len(weights) == 20_000
    last = found.step
assert last > 5, "nothing was saved"
print(last, leftovers)
"""


def test_checkpoint_survives_being_killed_at_any_moment(tmp_path):
    command = [sys.executable, "-c", KILLS, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "raytricks-test", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("num_values", [200_000, 5_000_000])
def test_checkpoint_on_a_full_disk_says_so_and_keeps_the_previous_one(small_disk, num_values):
    folder = small_disk / "checkpoints"
    save(folder, 1)
    (small_disk / "other").write_bytes(b"x" * (1_600_000))
    big = {"model": {"w": torch.zeros(num_values)}, "step": 2}
    with pytest.raises(CheckpointError, match=r"disk full \(\d+ MiB free\); free some space and resume"):
        save_checkpoint(folder, 2, big, keep=2)
    assert names(folder) == ["step-00000001"]
    found = newest_checkpoint(folder)
    assert found is not None and (found.step, found.rejected) == (1, ())
    (small_disk / "other").unlink()
    save(folder, 2)
    found = newest_checkpoint(folder)
    assert found is not None and found.step == 2
