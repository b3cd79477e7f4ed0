"""The folders that Ray and torch write to on this machine: their sockets' and the user's own."""

import os
from pathlib import Path
import pwd
import tempfile

from raytricks.cluster.checks.result import CheckResult, fail, ok, warn

_LONGEST_SOCKET = 107  # bytes of a path (Linux: unix(7))
_BELOW = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # of Ray 2.60


def ray_directory() -> Path:
    """Return where Ray 2.60 on Linux puts its sessions."""
    return _temporary() / "ray"


def check_sockets() -> CheckResult:
    """Say whether the paths of Ray's sockets are short enough; a Ray that is started here fails otherwise."""
    folder = _temporary()
    length, most = len(os.fsencode(folder)), _LONGEST_SOCKET - len(_BELOW) - 1
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "TMPDIR")
    if length > most:
        found = f"{name}={folder} has {length} bytes, Ray's sockets below it allow {most}"
        return fail("sockets", found, "set RAY_TMPDIR to a shorter path, such as RAY_TMPDIR=/tmp")
    return ok("sockets", f"{folder} is short enough for Ray's")


def check_user() -> CheckResult:
    """Say whether the user has a name and a home that can be written."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not (os.environ.get("USER") or os.environ.get("LOGNAME")):
            return warn("user", f"uid {os.getuid()} has no name, which torch may ask for", "set USER to any name")
    try:
        home = Path.home()
    except RuntimeError:
        return fail("user", f"uid {os.getuid()} has no home and HOME is not set", "set HOME to a writable directory")
    place = next(path for path in (home, *home.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError:
        return fail("user", f"HOME={home} cannot be written", "set HOME to a writable directory")
    return ok("user", f"{home} can be written")


def _temporary() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
