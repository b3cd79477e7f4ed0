"""The directory that a pack writes: whether it may, alone, and what a full disk or a kill leaves there."""

from collections.abc import Iterator
from contextlib import contextmanager
import errno
import fcntl
import os
from pathlib import Path
import re

from raytricks.data.listing import Listing
from raytricks.data.shard_format import DATASET_FILE, STATE_FILE
from raytricks.data.shard_writer import TEMPORARY_SUFFIX
from raytricks.errors import ConfigError, RaytricksError

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_LEFTOVER = re.compile(rf"\.(dataset|pack-state|[a-z]+-\d+(\.index)?)\.(json|arrow){TEMPORARY_SUFFIX}")


def require_usable(out: Path, listing: Listing) -> None:
    """Raise ConfigError when `out` holds other things than a pack, or lies within its own source."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, not a directory; choose another name")
    if listing.kind in ("folder", "shards", "idx") and out.resolve().is_relative_to(listing.place):
        raise ConfigError(f"{out}: lies within the source {listing.place}; choose a directory outside of it")
    is_ours = any((out / name).exists() for name in (DATASET_FILE, STATE_FILE))
    if out.is_dir() and not is_ours and set(out.iterdir()) - set(leftovers(out)):
        raise ConfigError(f"{out}: exists and holds other files; choose another name")


def leftovers(out: Path) -> list[Path]:
    """Return the half-written files of a pack that was killed."""
    return [path for path in out.glob(f".*{TEMPORARY_SUFFIX}") if _LEFTOVER.fullmatch(path.name)]


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep a second pack out of the directory; the lock ends with the process."""
    directory = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{out}: another pack is writing there; wait for it or choose another name") from None
        yield
    finally:
        os.close(directory)


@contextmanager
def naming_a_full_disk(out: Path) -> Iterator[None]:
    """Turn an error of the operating system into one line."""
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno in _FULL_DISK else f"cannot be written ({error.strerror or error})"
        raise RaytricksError(
            f"{out}: {what}; make room and run the same command again (finished shards are kept), or use another place"
        ) from None
