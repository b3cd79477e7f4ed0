"""Files that survive a kill and a power cut: whole under their name or not there at all."""

import os
from pathlib import Path

TEMPORARY = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def user_cache(name: str) -> Path:
    """Return the user's own directory of what can be made again, XDG's."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "raytricks" / name


def sync_directory(directory: Path) -> None:
    """Make renames in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
