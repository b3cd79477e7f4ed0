"""Describe a data set: what it holds, and what is wrong with it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
import hashlib

import numpy as np

from raytricks.data.contents import Contents
from raytricks.data.decode import DecodeSpec
from raytricks.data.decoding_store import DecodingStore
from raytricks.data.image_formats import header_of
from raytricks.data.inspection import Duplicates, Inspection, find_duplicates, inspect_split
from raytricks.data.listing import Listing, list_source
from raytricks.data.prepared import channel_statistics
from raytricks.data.shard_format import ShardEntry, read_dataset
from raytricks.data.storage import Storage, storage_at
from raytricks.errors import DataError

_STATISTICS_IMAGES = 512
_STATISTICS_SIDE = 256
_HASH_BYTES = 8 * 2**20


@dataclass(frozen=True)
class SplitInfo:
    """One split.

    Attributes:
        class_counts: images of each class, in the order of the class names.
        height, width: smallest, median and largest, pixels.
        num_bytes: encoded, of the readable images.
    """

    origin: str
    num_images: int
    num_bytes: int
    num_grayscale: int
    num_unreadable: int
    class_counts: tuple[int, ...]
    height: tuple[int, int, int]
    width: tuple[int, int, int]


@dataclass(frozen=True)
class DataInfo:
    """A data set.

    Attributes:
        kind: folder, table, idx, digits, fashion_mnist or shards.
        mean, std: per channel, 0..1, of a sample of the training images.
        unreadable: a line for each image that cannot be read.
        is_decoded: every image was decoded, not only its header read.
    """

    name: str
    kind: str
    place: str
    class_names: tuple[str, ...]
    splits: dict[str, SplitInfo]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    duplicates: Duplicates
    unreadable: tuple[str, ...]
    is_decoded: bool
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return asdict(self)


def data_info(
    listing: Listing,
    *,
    verify: bool = False,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda num_images: None,
) -> DataInfo:
    """Look at every image of a listing, from `raytricks.data.listing.list_source`.

    Images of shards were decoded when they were packed, so that is done again only to verify.

    Args:
        verify: also hash every shard and decode every image.
        progress: called with how many more images were seen.

    Raises:
        DataError: a shard's content differs from what was packed; names all of them.
    """
    if verify and listing.kind == "shards":
        verify_shards(listing.place)
    is_decoded = verify or listing.kind != "shards"
    inspections = {
        name: inspect_split(split, decode=is_decoded, workers=workers, progress=progress)
        for name, split in listing.splits.items()
    }
    mean, std = _statistics(listing, inspections["train"])
    return DataInfo(
        name=listing.name,
        kind=listing.kind,
        place=listing.place,
        class_names=listing.class_names,
        splits={name: _split_info(listing, name, seen) for name, seen in inspections.items()},
        mean=mean,
        std=std,
        duplicates=find_duplicates(listing, inspections),
        unreadable=tuple(line for seen in inspections.values() for line in seen.errors),
        is_decoded=is_decoded,
        notes=listing.notes,
    )


def describe(source: str, **options) -> DataInfo:
    """Describe a source as of `list_source`; the options are those of `data_info`."""
    return data_info(list_source(source), **options)


def verify_shards(root: str) -> None:
    """Compare every shard with its sha256; raises DataError naming all that differ, a line each."""
    storage = storage_at(root)
    dataset = read_dataset(storage)
    damaged = [
        f"{storage.place(shard.file)}: damaged, its sha256 differs; fetch the file again, or pack the data again"
        for split in dataset.splits.values()
        for shard in split.shards
        if _sha256(storage, shard) != shard.sha256
    ]
    if damaged:
        raise DataError("\n".join(damaged))


def _sha256(storage: Storage, shard: ShardEntry) -> str:
    digest = hashlib.sha256()
    for start in range(0, shard.bytes, _HASH_BYTES):
        digest.update(storage.read(shard.file, start, min(_HASH_BYTES, shard.bytes - start)))
    return digest.hexdigest()


def _split_info(listing: Listing, name: str, seen: Inspection) -> SplitInfo:
    split = listing.splits[name]
    return SplitInfo(
        origin=split.origin,
        num_images=len(split),
        num_bytes=int(seen.num_bytes.sum()),
        num_grayscale=int(seen.is_grayscale.sum()),
        num_unreadable=len(seen.errors),
        class_counts=tuple(np.bincount(split.labels, minlength=len(listing.class_names)).tolist()),
        height=_range(seen.heights[seen.is_readable]),
        width=_range(seen.widths[seen.is_readable]),
    )


def _range(sides: np.ndarray) -> tuple[int, int, int]:
    if len(sides) == 0:
        return 0, 0, 0
    return int(sides.min()), int(np.median(sides)), int(sides.max())


def _statistics(listing: Listing, seen: Inspection) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation on an even sample of the training images."""
    readable = np.flatnonzero(seen.is_readable)
    if len(readable) == 0:
        return (), ()
    sample = readable[np.linspace(0, len(readable) - 1, min(len(readable), _STATISTICS_IMAGES)).astype(int)]
    median = int(np.median(np.minimum(seen.heights, seen.widths)[readable]))
    channels = 1 if seen.is_grayscale[readable].all() else 3
    spec = DecodeSpec(min(median, _STATISTICS_SIDE), square=False, channels=channels)
    return channel_statistics(_SampleStore(listing.splits["train"].contents, sample, spec), channels)


class _SampleStore(DecodingStore):
    """Some images of any contents."""

    def __init__(self, contents: Contents, indices: np.ndarray, spec: DecodeSpec) -> None:
        super().__init__(spec)
        self._contents, self._indices = contents, indices

    def __len__(self) -> int:
        return len(self._indices)

    def encoded(self, index: int) -> tuple[bytes | memoryview, str]:
        row = int(self._indices[index])
        return self._contents.read(row), self._contents.place(row)

    def sizes(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        headers = [header_of(*self.encoded(int(index))) for index in indices]
        return np.array([h.height for h in headers]), np.array([h.width for h in headers])
