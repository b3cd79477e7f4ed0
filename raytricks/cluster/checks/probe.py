"""What a machine tells about itself; the same here and on each node of a cluster.

Ray carries this module to the nodes by value, so that a node without raytricks answers too: it
imports the standard library and `raytricks.limits`, which travels with it, only.
"""

import hashlib
import importlib.metadata
import os
from pathlib import Path
import platform
import resource
import shutil
import sys
import time
from typing import Any

from raytricks import limits

_PACKAGES = ("raytricks", "ray", "torch", "torchvision", "pyarrow", "numpy")
_SHARED_MEMORY = "/dev/shm"
_MOST_NAMES = 10_000
_WAIT_S = 10.0  # an NFS client may take seconds to show what another machine wrote
_POLL_INTERVAL_S = 0.2


class NodeProbe:
    """Answers on a node, as a Ray actor."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the node's facts.

        Args:
            request: node (id), trial_dir and mark (see `leave_mark`), output_dir, data_path (or None).
        """
        import ray

        trouble = leave_mark(Path(request["trial_dir"]), request["mark"], request["node"])
        temporary = ray.get_runtime_context().get_temp_dir()
        return {
            "storage": trouble,
            "data": None if request["data_path"] is None else describe_path(request["data_path"]),
            **read_facts({"output_dir": request["output_dir"], "Ray's temporary directory": temporary}),
        }

    def now(self) -> float:
        """Return the node's time."""
        return time.time()


def read_facts(places: dict[str, str]) -> dict[str, Any]:
    """Return what this machine has, in plain values.

    Args:
        places: label -> a directory, whose disk is looked at; it need not exist yet.

    Returns:
        host, python, packages {name: version or None}, cpus, memory_bytes, shared_memory {total, free}
        (None without), open_files, disks {label: {path, total, free}}, auth_mode (of Ray, as set).
    """
    memory = Path(_SHARED_MEMORY)
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "cpus": limits.usable_cpus(),
        "memory_bytes": limits.memory_bytes(),
        "shared_memory": _space(memory) if memory.is_dir() else None,
        "open_files": _open_files(),
        "disks": {label: {"path": path, **_space(Path(path))} for label, path in places.items()},
        "auth_mode": os.environ.get("RAY_AUTH_MODE", "disabled").lower(),
    }


def leave_mark(trial_dir: Path, mark: str, name: str) -> str | None:
    """Read the mark that the driver left in a directory and leave one beside it.

    Returns:
        What does not work; None when all does.
    """
    try:
        if not read_mark(trial_dir / "driver", mark, _WAIT_S):
            return "does not see a file that was written here"
        write_mark(trial_dir / name, mark)
    except OSError as error:
        return f"cannot write there ({error.strerror})"
    return None


def write_mark(path: Path, mark: str) -> None:
    """Write a file as a checkpoint is written: a temporary one, fsync, rename."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(mark)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_mark(path: Path, mark: str, wait_s: float) -> bool:
    """Return whether a file with that mark is there, or appears in time.

    A missing directory is not waited for: the driver made it before it asked.
    """
    deadline_s = time.monotonic() + (wait_s if path.parent.is_dir() else 0)
    while True:
        try:
            if path.read_text() == mark:
                return True
        except OSError:
            pass
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(_POLL_INTERVAL_S)


def describe_path(path: str) -> dict[str, Any]:
    """Return the kind of a path ("directory", "file" or None) and a hash of what a directory lists."""
    place = Path(path)
    try:
        if place.is_file():
            return {"kind": "file", "entries": str(place.stat().st_size)}
        names = sorted(entry.name for entry in place.iterdir())
    except OSError:
        return {"kind": None, "entries": ""}
    listed = hashlib.sha256("\n".join(names[:_MOST_NAMES]).encode(errors="replace")).hexdigest()
    return {"kind": "directory", "entries": f"{len(names)}-{listed}"}


def _space(path: Path) -> dict[str, int]:
    """Return the bytes of a disk, that of the nearest directory that exists."""
    for place in (path, *path.absolute().parents):
        try:
            usage = shutil.disk_usage(place)
        except OSError:
            continue
        return {"total": usage.total, "free": usage.free}
    return {"total": 0, "free": 0}


def _open_files() -> int | None:
    if sys.platform == "win32":
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
