"""What is to be packed or described: every image of a source, listed without opening any."""

from collections.abc import Iterator
from dataclasses import dataclass
import os
from pathlib import Path

import numpy as np

from raytricks.config.schema import DataConfig
from raytricks.data.contents import ArrayContents, Contents, EncodedContents, FileContents, ShardContents
from raytricks.data.loading import detect_source, find_splits
from raytricks.data.shard_format import read_dataset
from raytricks.data.sources import folder, table
from raytricks.data.sources.files import FileListing
from raytricks.data.sources.layout import LayoutSetting
from raytricks.data.sources.shards import source_names
from raytricks.data.splits import ArrayImages, DatasetImages, FoundSplits, ShardImages
from raytricks.data.storage import expand_user, storage_at

NAMED_SOURCES = ("digits", "fashion_mnist")


@dataclass(frozen=True)
class ListedSplit:
    """The images of a split.

    Attributes:
        labels: (N,) int64.
        origin: shown to the user, such as "t10k".
    """

    labels: np.ndarray
    contents: Contents
    origin: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Listing:
    """A data set's images, split by split ("train", "val", "test").

    Attributes:
        name: short, of the data.
        kind: "folder", "table", "idx", "digits", "fashion_mnist" or "shards".
        place: the resolved path or the URL, or the name of embedded data.
    """

    name: str
    kind: str
    place: str
    class_names: tuple[str, ...]
    splits: dict[str, ListedSplit]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(split) for split in self.splits.values())

    def images(self) -> Iterator[tuple[str, ListedSplit, int]]:
        """Yield (split's name, split, index) of every image in order."""
        for name, split in self.splits.items():
            for index in range(len(split)):
                yield name, split, index


def list_source(source: str | Path, layout: LayoutSetting = "auto") -> Listing:
    """List a folder, a CSV or Parquet file, IDX files, packed shards, or digits or fashion_mnist by name.

    Args:
        layout: of a folder, as data.layout.

    Raises:
        DataError: nothing usable is there.
    """
    source = os.fspath(source)
    if source in NAMED_SOURCES and not Path(source).exists():
        config = DataConfig(source="digits" if source == "digits" else "fashion_mnist")
        return _listing(find_splits(config), source, source)
    path = Path(expand_user(source))
    kind = detect_source(source)
    if kind == "folder":
        return _of_files(folder.list_folder(path, layout), kind, path)
    if kind == "table":
        return _of_files(table.list_table(path), kind, path)
    place = source if "://" in source else str(path.resolve())
    return _listing(find_splits(DataConfig(source=kind, path=source)), kind, place)


def _of_files(listed: FileListing, kind: str, path: Path) -> Listing:
    splits = {
        name: ListedSplit(files.labels, FileContents(files.paths, files.names), files.origin)
        for name, files in listed.splits.items()
    }
    return Listing(listed.name, kind, str(path.resolve()), listed.class_names, splits, listed.notes)


def _listing(found: FoundSplits, kind: str, place: str) -> Listing:
    splits = {}
    for name, split in (("train", found.train), ("val", found.evaluation), ("test", found.test)):
        if split is None:
            continue
        if isinstance(split.images, ShardImages):
            root = split.images.root
            contents: Contents = ShardContents(
                split.images, source_names(root, read_dataset(storage_at(root)).splits[name])
            )
        elif isinstance(split.images, DatasetImages):
            contents = EncodedContents(split.images, name)
        else:
            assert isinstance(split.images, ArrayImages)
            contents = ArrayContents(split.images.pixels, name)
        splits[name] = ListedSplit(split.labels, contents, split.origin)
    return Listing(found.name, kind, place, tuple(found.class_names), splits, found.notes)
