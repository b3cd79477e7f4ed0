"""Pack a data set into few large files: smaller images, no search for files, nothing to decode twice.

`pack` lists the source, brings every image to its packed form in threads and writes shards one
after the other; docs/data.md describes the format. The same source and settings give the same bytes,
whatever the number of threads and however often the work was interrupted.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
import hashlib
import os
from pathlib import Path

import numpy as np

from raytricks.data.image_formats import UnreadableImage
from raytricks.data.listing import ListedSplit, Listing, list_source
from raytricks.data.pack_state import (
    Identity,
    PackState,
    SplitState,
    leftovers,
    load_state,
    locked,
    naming_a_full_disk,
    require_usable,
)
from raytricks.data.shard_format import (
    DATASET_FILE,
    STATE_FILE,
    Dataset,
    SplitEntry,
    read_dataset,
    read_index,
    require_size,
)
from raytricks.data.shard_writer import PackedImage, ShardWriter, pack_image, write_atomically
from raytricks.data.sources.layout import LayoutSetting
from raytricks.data.storage import LocalStorage
from raytricks.data.threads import map_in_order
from raytricks.errors import ConfigError, DataError
from raytricks.limits import usable_cpus

SHOWN_IMAGES = 20
_AHEAD_PER_WORKER = 4  # images decoded before they are needed; bounds the memory


@dataclass(frozen=True)
class PackResult:
    """A finished pack.

    Attributes:
        num_resized: images that were made smaller; the others keep their bytes.
        bytes_before, bytes_after: of the images in the source, and of the shards.
        was_packed: it was finished before; nothing was done.
    """

    dataset: Dataset
    num_resized: int
    bytes_before: int
    bytes_after: int
    was_packed: bool
    notes: tuple[str, ...] = ()


def pack(
    source: str | Path,
    out: str | Path,
    *,
    short_side: int = 256,
    shard_mib: int = 256,
    workers: int | None = None,
    max_corrupt: int = 0,
    layout: LayoutSetting = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PackResult:
    """Pack a source into the directory `out`, or go on with what was interrupted there.

    Args:
        source: a folder, a CSV or Parquet file, IDX files, packed shards, "digits" or "fashion_mnist".
        short_side: longer short sides are resized to it; 0: every image keeps its bytes.
        shard_mib: size of a shard, MiB.
        workers: threads; None: the machine's cores.
        max_corrupt: unreadable images to leave out; one more is an error.
        layout: of a folder, as data.layout.
        progress: called with (images done, all images).

    Raises:
        ConfigError: `out` is in use, or holds something else.
        DataError: the source is unusable, or too many images are unreadable; names them.
        RaytricksError: `out` cannot be written, such as on a full disk.
    """
    listing, out = list_source(source, layout), Path(out).expanduser()
    identity = Identity(listing.place, _source_sha256(listing), short_side, shard_mib)
    require_usable(out, listing)
    with naming_a_full_disk(out):
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            if (out / DATASET_FILE).is_file():
                return replace(_already_packed(out, identity), notes=listing.notes)
            for leftover in leftovers(out):
                leftover.unlink()
            state = load_state(out, identity)
            state.save(out)
            _Packer(out, listing, state, max_corrupt, progress, workers or usable_cpus()).run()
            dataset = _dataset_of(listing, state)
            _require_all_classes(out, dataset)
            write_atomically(out / DATASET_FILE, dataset.to_json().encode())
            (out / STATE_FILE).unlink()
    return PackResult(
        dataset,
        sum(split.num_resized for split in state.splits.values()),
        sum(split.bytes_before for split in state.splits.values()),
        bytes_of(dataset),
        was_packed=False,
        notes=listing.notes,
    )


def bytes_of(dataset: Dataset) -> int:
    """Return the bytes of all shards with their indexes."""
    return sum(shard.bytes + shard.index_bytes for split in dataset.splits.values() for shard in split.shards)


class _Packer:
    """Fills a directory with the shards that are still missing."""

    def __init__(
        self,
        out: Path,
        listing: Listing,
        state: PackState,
        max_corrupt: int,
        progress: Callable[[int, int], None],
        workers: int,
    ) -> None:
        self._out, self._listing, self._state = out, listing, state
        self._max_corrupt, self._progress, self._workers = max_corrupt, progress, workers
        self._done = 0

    def run(self) -> None:
        for name, split in self._listing.splits.items():
            self._pack_split(name, split, self._state.splits.setdefault(name, SplitState()))

    def _pack_split(self, name: str, split: ListedSplit, finished: SplitState) -> None:
        """Write a split's shards from its first unfinished one on."""
        limit = self._state.identity.shard_mib * 2**20
        self._done += finished.next_index
        current = SplitState(**vars(finished))  # runs ahead of what is finished, which is saved with each shard
        current.shards, current.skipped = list(finished.shards), list(finished.skipped)
        writer: ShardWriter | None = None
        try:
            for index, image in self._images(split, finished.next_index):
                self._progress(self._done, len(self._listing))
                self._done += 1
                if isinstance(image, UnreadableImage):
                    self._skip(name, current, image)
                    continue
                if writer is not None and writer.num_bytes + len(image.content) > limit:
                    self._finish_shard(name, current, writer, index)
                    writer = None
                if writer is None:
                    writer = ShardWriter(self._out, name, len(current.shards), self._listing.class_names)
                writer.add(image, int(split.labels[index]), split.contents.name(index))
                current.is_grayscale &= image.is_grayscale
                current.is_deep |= image.is_deep
                current.num_resized += image.is_resized
                current.bytes_before += split.contents.num_bytes(index)
            if writer is not None:
                self._finish_shard(name, current, writer, len(split))
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise
        if not current.shards:
            raise DataError(f"{self._listing.place}: no image of {name} is readable; nothing is left to pack")
        self._save(name, current, len(split))
        self._progress(self._done, len(self._listing))

    def _finish_shard(self, name: str, current: SplitState, writer: ShardWriter, next_index: int) -> None:
        current.shards.append(writer.finish())
        self._save(name, current, next_index)

    def _save(self, name: str, current: SplitState, next_index: int) -> None:
        current.next_index = next_index
        self._state.splits[name] = current
        self._state.save(self._out)

    def _skip(self, name: str, current: SplitState, error: UnreadableImage) -> None:
        """Leave an unreadable image out, as long as that is allowed."""
        if self._max_corrupt == 0:
            raise DataError(f"{error}; --max-corrupt N leaves up to N such images out") from None
        current.skipped.append(str(error))
        others = [line for other, split in self._state.splits.items() if other != name for line in split.skipped]
        skipped = others + current.skipped
        if len(skipped) > self._max_corrupt:
            head = f"{len(skipped)} unreadable images so far, --max-corrupt allows {self._max_corrupt}:"
            more = [f"... and {len(skipped) - SHOWN_IMAGES} more"] if len(skipped) > SHOWN_IMAGES else []
            raise DataError("\n".join([head, *skipped[:SHOWN_IMAGES], *more]))

    def _images(self, split: ListedSplit, start: int) -> Iterator[tuple[int, PackedImage | UnreadableImage]]:
        """Yield (index, packed image or what is wrong with it) in order, made in threads."""
        short_side = self._state.identity.short_side

        def attempt(index: int) -> PackedImage | UnreadableImage:
            try:
                return pack_image(split.contents, index, short_side)
            except UnreadableImage as error:
                return error

        numbers, ahead = range(start, len(split)), _AHEAD_PER_WORKER * self._workers
        pool = ThreadPoolExecutor(self._workers)
        try:
            yield from zip(numbers, map_in_order(pool, attempt, numbers, ahead), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _source_sha256(listing: Listing) -> str:
    """Return what tells a changed source from an unchanged one; reads no image in a file."""
    digest = hashlib.sha256(repr(listing.class_names).encode())
    for name, split, index in listing.images():
        contents = split.contents
        line = f"{name} {contents.name(index)} {split.labels[index]} {contents.state(index)}\n"
        digest.update(os.fsencode(line))  # names may be no UTF-8
    return digest.hexdigest()


def _already_packed(out: Path, identity: Identity) -> PackResult:
    """Accept a finished pack of the same images; raises ConfigError for another, DataError for a damaged one."""
    dataset = read_dataset(LocalStorage(str(out)))
    if any(getattr(dataset, name) != value for name, value in asdict(identity).items()):
        raise ConfigError(
            f"{out}: exists, packed from {dataset.created_from} (short side {dataset.short_side}), of other images or "
            "settings; choose another name"
        )
    for split in dataset.splits.values():
        for shard in split.shards:
            require_size(LocalStorage(str(out)), shard.file, shard.bytes)
    (out / STATE_FILE).unlink(missing_ok=True)
    return PackResult(dataset, 0, 0, bytes_of(dataset), was_packed=True)


def _dataset_of(listing: Listing, state: PackState) -> Dataset:
    return Dataset(
        name=listing.name,
        class_names=listing.class_names,
        splits={
            name: SplitEntry(
                split.origin,
                state.splits[name].is_grayscale,
                tuple(state.splits[name].shards),
                state.splits[name].is_deep,
            )
            for name, split in listing.splits.items()
        },
        skipped=tuple(line for name in listing.splits for line in state.splits[name].skipped),
        **asdict(state.identity),
    )


def _require_all_classes(out: Path, dataset: Dataset) -> None:
    """Raise DataError when every training image of a class was unreadable."""
    storage = LocalStorage(str(out))
    labels = [read_index(storage, shard)["label"].to_numpy() for shard in dataset.splits["train"].shards]
    counts = np.bincount(np.concatenate(labels), minlength=len(dataset.class_names))
    if not counts.all():
        name = dataset.class_names[int(np.argmin(counts))]
        raise DataError(f"no training image of class {name!r} is readable; restore some or remove the class")
