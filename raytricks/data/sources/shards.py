"""Packed shards: what `raytricks data pack` wrote, on this machine or at a URL."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from raytricks.config.schema import DataConfig
from raytricks.data.shard_format import (
    SPLITS,
    Dataset,
    SplitEntry,
    default_threads,
    holds_shards,
    read_dataset,
    read_index,
    require_size,
)
from raytricks.data.sources.files import groups_in
from raytricks.data.splits import FoundSplits, ShardImages, Split
from raytricks.data.storage import Storage, expand_user, storage_at
from raytricks.errors import DataError
from raytricks.parts.hooks import Hooks


def load_shards(root: str, group: str | None = None) -> FoundSplits:
    """Open packed data: reads dataset.json and the indexes, no image.

    Args:
        root: directory or URL.
        group: data.group, looked for in what the images were called in their source.

    Raises:
        DataError: unfinished, of another version, or a file that is missing, of another size
            or damaged; the message names it. (Images are not read: `data info --verify` does.)
    """
    storage = storage_at(expand_user(root))
    dataset = read_dataset(storage)
    if "train" not in dataset.splits:
        raise DataError(f"{storage.root}: has no train split; pack data that has one")
    splits = {name: _open_split(storage, dataset, dataset.splits[name]) for name in SPLITS if name in dataset.splits}
    if group is not None:
        root = storage.root
        splits = {
            name: replace(split, groups=groups_in(source_names(root, dataset.splits[name]), group))
            for name, split in splits.items()
        }
    notes = ()
    if dataset.skipped:
        notes = (f"{storage.root}: {len(dataset.skipped)} unreadable images were left out when it was packed",)
    return FoundSplits(dataset.name, dataset.class_names, splits["train"], splits.get("val"), splits.get("test"), notes)


def source_names(root: str, entry: SplitEntry) -> tuple[str, ...]:
    """Return what each image of a split was called where it was packed from."""
    storage = storage_at(root)
    return tuple(name for shard in entry.shards for name in read_index(storage, shard)["source"].to_pylist())


def _open_split(storage: Storage, dataset: Dataset, entry: SplitEntry) -> Split:
    with ThreadPoolExecutor(default_threads(storage.root)) as pool:
        list(pool.map(lambda shard: require_size(storage, shard.file, shard.bytes), entry.shards))
        tables = list(pool.map(lambda shard: read_index(storage, shard), entry.shards))
    counts = [table.num_rows for table in tables]
    if counts != [shard.num_images for shard in entry.shards]:
        raise DataError(f"{storage.root}: the indexes hold {counts} images, dataset.json differs; pack the data again")

    def column(name: str) -> np.ndarray:
        return np.concatenate([table[name].to_numpy() for table in tables])

    labels = column("label")
    if labels.min() < 0 or labels.max() >= len(dataset.class_names):
        raise DataError(f"{storage.root}: a label is {labels.max()}, there are {len(dataset.class_names)} classes")
    images = ShardImages(
        root=storage.root,
        files=tuple(shard.file for shard in entry.shards),
        file_bytes=tuple(shard.bytes for shard in entry.shards),
        digests=tuple(shard.sha256 for shard in entry.shards),
        shards=np.repeat(np.arange(len(counts)), counts),
        rows=np.concatenate([np.arange(count) for count in counts]),
        offsets=column("offset"),
        lengths=column("length"),
        heights=column("height").astype(np.int64),
        widths=column("width").astype(np.int64),
        is_grayscale=entry.is_grayscale,
        is_deep=entry.is_deep,
    )
    return Split(labels, images, entry.origin)


def open_splits(config: DataConfig) -> FoundSplits:
    """Open the packed data that data.path names."""
    return load_shards(config.path or "", config.group)


def _holds(path: str) -> bool:
    return "://" in path or holds_shards(storage_at(expand_user(path)))  # nothing else is read from a URL


HOOKS = Hooks(build=open_splits, holds=_holds)
