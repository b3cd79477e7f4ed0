"""The files of packed data: dataset.json, the Arrow shards beside it, their indexes; single images read from them.

`dataset.json` is written last, so a directory that has it is complete. Of each shard it
holds the size and the sha256, and of everything together `content_sha256`.
"""

from dataclasses import asdict, dataclass, fields
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from raytricks.data.splits import ShardImages
from raytricks.data.storage import Storage, storage_at
from raytricks.errors import DataError
from raytricks.limits import usable_cpus

if TYPE_CHECKING:
    from pyarrow import Table

DATASET_FILE, STATE_FILE = "dataset.json", "pack-state.json"
FORMAT, VERSION = "raytricks-shards", 1
SPLITS = ("train", "val", "test")
_SHARD_NAME = re.compile(r"[a-z]+-\d{5,}\.arrow")  # nothing that could lead out of the directory


@dataclass(frozen=True)
class ShardEntry:
    """One shard and its index, as dataset.json describes them."""

    file: str
    num_images: int
    bytes: int
    sha256: str
    index_bytes: int
    index_sha256: str

    @property
    def index_file(self) -> str:
        """Name of the file of byte ranges, labels and sizes."""
        return self.file.removesuffix(".arrow") + ".index.arrow"


@dataclass(frozen=True)
class SplitEntry:
    """One split.

    Attributes:
        origin: shown to the user, such as "t10k".
        is_grayscale: every image is.
        is_deep: some image has more than 8 bits a value.
    """

    origin: str
    is_grayscale: bool
    shards: tuple[ShardEntry, ...]
    is_deep: bool = False

    @property
    def num_images(self) -> int:
        return sum(shard.num_images for shard in self.shards)


@dataclass(frozen=True)
class Dataset:
    """What dataset.json holds.

    Attributes:
        name: of the data that was packed.
        short_side: images were made this large at most; 0: as they came.
        created_from: where the images came from.
        source_sha256: of the names, labels and states of the files that were packed.
        skipped: unreadable images that were left out, with the reason.
    """

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, SplitEntry]
    short_side: int
    shard_mib: int
    created_from: str
    source_sha256: str
    skipped: tuple[str, ...] = ()

    @property
    def content_sha256(self) -> str:
        """Of the class names, the splits and the shards; equal for equal data wherever it was packed."""
        content = {
            "class_names": list(self.class_names),
            "splits": {
                name: [
                    split.origin,
                    split.is_grayscale,
                    [[s.file, s.sha256, s.index_sha256] for s in split.shards],
                    *([True] if split.is_deep else []),  # of older packs it says nothing
                ]
                for name, split in self.splits.items()
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the content of dataset.json."""
        head = {"format": FORMAT, "version": VERSION, "content_sha256": self.content_sha256}
        splits = {
            name: {"num_images": split.num_images, **asdict(split)}  # counted for those who read the file
            for name, split in self.splits.items()
        }
        return json.dumps(head | asdict(self) | {"splits": splits}, indent=1) + "\n"


def holds_shards(storage: Storage) -> bool:
    """Whether there are packed shards, finished or not."""
    return storage.size(DATASET_FILE) is not None or storage.size(STATE_FILE) is not None


def read_dataset(storage: Storage) -> Dataset:
    """Read and check dataset.json.

    Raises:
        DataError: missing, of an unfinished pack, of another version, or damaged.
    """
    if storage.size(DATASET_FILE) is None:
        if storage.size(STATE_FILE) is not None:
            raise DataError(
                f"{storage.root}: packing was not finished; run the same `raytricks data pack` again to go on"
            )
        raise DataError(f"{storage.root}: holds no {DATASET_FILE}; name a directory that `raytricks data pack` wrote")
    place = storage.place(DATASET_FILE)
    try:
        raw = json.loads(bytes(storage.read(DATASET_FILE)))
        version = raw["version"] if raw["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{place}: damaged, or of another program; pack the data again") from None
    if version != VERSION:
        raise DataError(f"{place}: format version {version!r}, this raytricks reads {VERSION}; pack the data again")
    try:
        dataset = _parse(raw)
        is_sound = raw["content_sha256"] == dataset.content_sha256
    except (ValueError, KeyError, TypeError, AttributeError):
        is_sound = False
    if not is_sound:
        raise DataError(f"{place}: damaged or changed, its content_sha256 does not fit; pack the data again")
    return dataset


def shard_entry(raw: dict[str, Any]) -> ShardEntry:
    """Return the entry that `dataclasses.asdict` gave; raises ValueError or TypeError for anything else."""
    entry = ShardEntry(**raw)
    for field in fields(entry):
        if not isinstance(getattr(entry, field.name), str if field.name in ("file", "sha256", "index_sha256") else int):
            raise TypeError(field.name)
    if not _SHARD_NAME.fullmatch(entry.file) or entry.num_images < 1:
        raise ValueError(entry.file)
    return entry


def _parse(raw: dict[str, Any]) -> Dataset:
    splits = {}
    for name in SPLITS:
        if name in raw["splits"]:
            split = raw["splits"][name]
            shards = tuple(shard_entry(shard) for shard in split["shards"])
            splits[name] = SplitEntry(
                str(split["origin"]), bool(split["is_grayscale"]), shards, bool(split.get("is_deep", False))
            )
    return Dataset(
        name=str(raw["name"]),
        class_names=tuple(str(name) for name in raw["class_names"]),
        splits=splits,
        short_side=int(raw["short_side"]),
        shard_mib=int(raw["shard_mib"]),
        created_from=str(raw["created_from"]),
        source_sha256=str(raw["source_sha256"]),
        skipped=tuple(str(line) for line in raw["skipped"]),
    )


_REMOTE_THREADS = 16  # wait for the network, not for a core
_AGAIN = "fetch the file again, or pack the data again"


class ShardReader:
    """Reads the encoded bytes of images. Threads may share one; a pickled one opens its files again."""

    def __init__(self, images: ShardImages) -> None:
        self._images = images
        self._storage = storage_at(images.root)
        self._checked: set[int] = set()

    def __getstate__(self):
        return {"_images": self._images}

    def __setstate__(self, state) -> None:
        self.__init__(state["_images"])

    def read(self, index: int) -> bytes | memoryview:
        """Return the encoded image; of local shards a view of the map, without a copy.

        Raises:
            DataError: the shard is missing, or of another size than when it was packed.
        """
        images = self._images
        shard = int(images.shards[index])
        if shard not in self._checked:  # a map of a file that has shrunk would kill the process
            require_size(self._storage, images.files[shard], images.file_bytes[shard])
            self._checked.add(shard)
        return self._storage.read(images.files[shard], int(images.offsets[index]), int(images.lengths[index]))


def require_size(storage: Storage, name: str, expected: int) -> None:
    """Raise DataError when a shard is missing or its size is wrong."""
    size = storage.size(name)
    if size is None:
        raise DataError(f"{storage.place(name)}: is missing; {_AGAIN}")
    if size != expected:
        raise DataError(f"{storage.place(name)}: holds {size:,} bytes, must be {expected:,}; {_AGAIN}")


def read_index(storage: Storage, entry: ShardEntry) -> "Table":
    """Read a shard's index: source, label, height, width, is_grayscale, offset, length of each image.

    Raises:
        DataError: it is missing or damaged.
    """
    import pyarrow as pa  # a third of a second, paid only for shards

    require_size(storage, entry.index_file, entry.index_bytes)
    content = storage.read(entry.index_file)
    if sha256_of(content) != entry.index_sha256:
        raise DataError(f"{storage.place(entry.index_file)}: damaged, its sha256 differs; {_AGAIN}")
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()


def sha256_of(content: bytes | memoryview) -> str:
    """Return the sha256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def default_threads(root: str) -> int:
    """Return how many images to fetch and decode at once."""
    cores = usable_cpus()
    return max(cores, _REMOTE_THREADS) if "://" in root else cores
