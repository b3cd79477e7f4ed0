"""Checkpoints that survive being killed at any moment, and are trusted only when they verify.

    checkpoints/step-00001234/state.pt        tensors and plain values only
    checkpoints/step-00001234/manifest.json   step, sha256 and size of state.pt, written last

A checkpoint is made under a temporary name, flushed to the disk and renamed, so a directory
with the final name is whole. Its sha256 is compared before anything is unpickled, and only
with weights_only=True.
"""

from dataclasses import dataclass
import errno
import hashlib
import json
import os
from pathlib import Path
import re
import shutil
from typing import Any

import torch

from raytricks.errors import CheckpointError, NonFiniteError
from raytricks.files import TEMPORARY, sync_directory, write_atomically

FORMAT_VERSION = 1
_STATE, _MANIFEST, _PREFIX = "state.pt", "manifest.json", "step-"
_NAME = re.compile(rf"{_PREFIX}\d+")


@dataclass(frozen=True)
class FoundCheckpoint:
    """The newest valid checkpoint and what was wrong with newer ones.

    Attributes:
        content: what `save_checkpoint` was given.
        rejected: one line for each newer checkpoint that did not verify.
    """

    path: Path
    step: int
    content: dict[str, Any]
    rejected: tuple[str, ...]


def save_checkpoint(directory: Path, step: int, content: dict[str, Any], *, keep: int) -> Path:
    """Write a checkpoint atomically and delete all but the newest `keep`.

    Checkpoints of later steps are deleted too: a run that makes this step again was resumed before
    them, because they were damaged.

    Args:
        content: nested dicts and lists of tensors and plain values, with the model's state
            dict under "model".

    Raises:
        NonFiniteError: a weight or buffer is NaN or infinite; nothing is written.
        CheckpointError: the disk is full or not writable; older checkpoints are untouched.
    """
    _require_finite(content["model"], step)
    final = directory / f"{_PREFIX}{step:08d}"
    temporary = directory / f"{TEMPORARY}{final.name}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write_state(temporary / _STATE, content)
        _write_manifest(temporary, step)
        if final.exists():
            shutil.rmtree(final)  # the same step again, after a restart from an older checkpoint
        temporary.rename(final)
        sync_directory(directory)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_describe_failure(directory, error)) from error
    names = _names(directory)
    kept = names[: names.index(final.name) + 1][-keep:]
    for name in names:
        if name not in kept:
            shutil.rmtree(directory / name, ignore_errors=True)
    return final


def newest_checkpoint(directory: Path) -> FoundCheckpoint | None:
    """Load the newest checkpoint that verifies; None when there is none at all.

    Raises:
        CheckpointError: there are checkpoints, but none is valid. A run never starts over silently.
    """
    rejected: list[str] = []
    for name in reversed(_names(directory)):
        path = directory / name
        try:
            step = _verify(path)
            content = _load_state(path / _STATE)
        except (CheckpointError, OSError) as error:
            rejected.append(f"{path}: {error}")
            continue
        return FoundCheckpoint(path, step, content, tuple(rejected))
    if rejected:
        raise CheckpointError(
            f"no valid checkpoint in {directory}: {'; '.join(rejected)}; restore one from a backup, or start a new run"
        )
    return None


def load_checkpoint(directory: Path, step: int) -> FoundCheckpoint:
    """Load the checkpoint of a step; raises CheckpointError when it is not there or not sound."""
    return load_checkpoint_at(path_of(directory, step))


def path_of(directory: Path, step: int) -> Path:
    """Return where the checkpoint of a step is, if it is kept."""
    return directory / f"{_PREFIX}{step:08d}"


def newest_path(directory: Path) -> Path | None:
    """Return the newest checkpoint, sound or not; None where there is none."""
    names = _names(directory)
    return directory / names[-1] if names else None


def load_checkpoint_at(path: Path) -> FoundCheckpoint:
    """Load a checkpoint; raises CheckpointError when it is not there or not sound."""
    try:
        found_step = _verify(path)
        return FoundCheckpoint(path, found_step, _load_state(path / _STATE), ())
    except (CheckpointError, OSError) as error:
        raise CheckpointError(f"{path}: {error}; make sure that all nodes see the same files") from None


def clean_temporary(directory: Path) -> None:
    """Remove what a killed save left behind."""
    for leftover in directory.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _names(directory: Path) -> list[str]:
    """Return the names of the checkpoints in a directory, oldest first."""
    names = (path.name for path in directory.glob(f"{_PREFIX}*")) if directory.is_dir() else ()
    return sorted((name for name in names if _NAME.fullmatch(name)), key=_step_of)


def _step_of(name: str) -> int:
    return int(name.removeprefix(_PREFIX))


def _load_state(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # it verified, but is not ours: unpickling it may fail in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path.name} holds more than tensors and plain values ({reason})") from None


def _write_state(path: Path, content: dict[str, Any]) -> None:
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def _write_manifest(directory: Path, step: int) -> None:
    state = directory / _STATE
    manifest = {
        "format": FORMAT_VERSION,
        "step": step,
        "files": {_STATE: {"sha256": _sha256(state), "bytes": state.stat().st_size}},
    }
    write_atomically(directory / _MANIFEST, json.dumps(manifest, indent=1).encode())


def _verify(path: Path) -> int:
    """Return the step of a checkpoint whose files are what its manifest says."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        step, entry = manifest["step"], manifest["files"][_STATE]
        version, size, digest = manifest["format"], entry["bytes"], entry["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"manifest.json is missing or damaged ({type(error).__name__})") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"format {version}, this version of raytricks reads {FORMAT_VERSION}")
    if step != _step_of(path.name):
        raise CheckpointError(f"manifest.json is of step {step}")
    state = path / _STATE
    if not state.is_file():
        raise CheckpointError(f"{_STATE} is missing")
    if state.stat().st_size != size:
        raise CheckpointError(f"{_STATE} has {state.stat().st_size} bytes, its manifest says {size}")
    if _sha256(state) != digest:
        raise CheckpointError(f"{_STATE} does not have the sha256 of its manifest")
    return step


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_finite(state_dict: dict[str, torch.Tensor], step: int) -> None:
    poisoned = [n for n, v in state_dict.items() if v.is_floating_point() and not bool(v.isfinite().all())]
    if poisoned:
        raise NonFiniteError(
            f"step {step}: {poisoned[0]} holds NaN or infinity ({len(poisoned)} tensors do); not saved, the "
            "previous checkpoint is kept; lower recipe.base_lr or set hardware.precision=fp32"
        )


def _describe_failure(directory: Path, error: Exception) -> str:
    free_mib = shutil.disk_usage(directory).free / 2**20 if directory.exists() else 0
    # torch.save reports a full disk as a RuntimeError without an errno
    is_full = getattr(error, "errno", None) == errno.ENOSPC or (isinstance(error, RuntimeError) and free_mib < 64)
    if is_full:
        return (
            f"{directory}: disk full ({free_mib:.0f} MiB free); free some space and resume, the last checkpoint is kept"
        )
    return f"{directory}: the checkpoint cannot be written ({error}); make it writable and resume"
