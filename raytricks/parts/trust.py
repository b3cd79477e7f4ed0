"""Whose code may run: that of this user's own commands and configs, and of runs that this user has looked at.

A run's directory names code in its config.yaml; so may a run that came from somebody else. A fingerprint of each
part that this user has started a run with, or has said to trust, stands in one file of the user's own.
"""

from collections.abc import Iterable
import hashlib
import os
from pathlib import Path

from raytricks.errors import ConfigError
from raytricks.parts.bring import Brought


def trusted_file() -> Path:
    """Return the file of fingerprints, readable by the user alone."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "raytricks" / "trusted"


def trust(parts: Iterable[Brought]) -> None:
    """Remember parts as looked at.

    Raises:
        ConfigError: there is no place to remember them.
    """
    known = _known()
    new = [mark for mark in map(_mark, parts) if mark not in known]
    if not new:
        return
    try:
        path = trusted_file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write("".join(f"{mark}\n" for mark in new))
    except (OSError, RuntimeError) as error:  # a home that is not there, or read-only, as in a container
        raise ConfigError(
            f"what you trust cannot be remembered ({error}); set XDG_DATA_HOME to a directory that you can write to"
        ) from None


def are_trusted(parts: Iterable[Brought]) -> bool:
    """Return whether this user has started a run with each of the parts, or said to trust them."""
    known = _known()
    return all(_mark(part) in known for part in parts)


def _mark(part: Brought) -> str:
    """A file is its content, wherever it lies; a package its name and version."""
    what = part.sha256 or f"{part.spec} {part.version}"
    return hashlib.sha256(what.encode()).hexdigest()


def _known() -> set[str]:
    try:
        return set(trusted_file().read_text().split())
    except (OSError, RuntimeError):
        return set()
