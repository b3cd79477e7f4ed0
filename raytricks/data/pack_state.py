"""The directory that a pack writes: whether it may, alone; what a full disk or a kill leaves; how far it has come."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
import errno
import fcntl
import json
import os
from pathlib import Path
import re
from typing import Any

from raytricks.data.listing import Listing
from raytricks.data.shard_format import DATASET_FILE, STATE_FILE, VERSION, ShardEntry, sha256_of, shard_entry
from raytricks.data.shard_writer import TEMPORARY_SUFFIX, write_atomically
from raytricks.data.storage import LocalStorage
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


@dataclass(frozen=True)
class Identity:
    """What a pack is made of: two with equal identities make the same bytes."""

    created_from: str
    source_sha256: str
    short_side: int
    shard_mib: int


@dataclass
class SplitState:
    """The finished part of a split.

    Attributes:
        next_index: the first image that is in no finished shard.
        skipped: unreadable images before it, with the reasons.
        num_resized, bytes_before: of the packed images before it.
    """

    shards: list[ShardEntry] = field(default_factory=list)
    next_index: int = 0
    skipped: list[str] = field(default_factory=list)
    is_grayscale: bool = True
    is_deep: bool = False
    num_resized: int = 0
    bytes_before: int = 0


@dataclass
class PackState:
    """The finished parts of a pack."""

    identity: Identity
    splits: dict[str, SplitState]

    def save(self, directory: Path) -> None:
        """Write the state, atomically."""
        write_atomically(directory / STATE_FILE, json.dumps({"version": VERSION} | asdict(self)).encode())

    @property
    def num_skipped(self) -> int:
        return sum(len(split.skipped) for split in self.splits.values())


def load_state(directory: Path, identity: Identity) -> PackState:
    """Return the state of an unfinished pack; a new one where there is none, or its shards are damaged.

    Raises:
        ConfigError: the unfinished pack is of other images or settings.
    """
    try:
        raw = json.loads((directory / STATE_FILE).read_text())
        is_same = raw["version"] == VERSION and Identity(**raw["identity"]) == identity
        splits = {name: _split_state(split) for name, split in raw["splits"].items()}
    except FileNotFoundError:
        return PackState(identity, {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return PackState(identity, {})  # of no use; the shards are made again
    if not is_same:
        raise ConfigError(
            f"{directory}: holds an unfinished pack of other images or settings (source, --short-side, --shard-mib); "
            "remove it or choose another directory"
        )
    sound = {name: split for name, split in splits.items() if all(_is_sound(directory, s) for s in split.shards)}
    return PackState(identity, sound)


def _split_state(raw: dict[str, Any]) -> SplitState:
    shards: Any = [shard_entry(shard) for shard in raw["shards"]]
    return SplitState(**(raw | {"shards": shards}))


def _is_sound(directory: Path, entry: ShardEntry) -> bool:
    """Whether a finished shard and its index are still what they were."""
    storage = LocalStorage(str(directory))
    files = ((entry.file, entry.sha256), (entry.index_file, entry.index_sha256))
    return all(storage.size(name) is not None and sha256_of(storage.read(name)) == digest for name, digest in files)
