"""How far a pack has come, kept beside its shards, so that a killed one goes on where it was."""

from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
from typing import Any

from raytricks.data.shard_format import STATE_FILE, VERSION, ShardEntry, shard_entry
from raytricks.data.shard_reader import sha256_of
from raytricks.data.shard_writer import write_atomically
from raytricks.data.storage import LocalStorage
from raytricks.errors import ConfigError


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
