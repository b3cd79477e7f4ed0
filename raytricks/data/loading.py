"""Find the data set that a config names, without decoding its images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raytricks.config.schema import DataConfig
from raytricks.data.shard_format import holds_shards
from raytricks.data.sources import digits, folder, idx, shards
from raytricks.data.sources.dataset import class_names_of, dataset_images, labels_of
from raytricks.data.splits import DatasetSplits, Split, hold_out
from raytricks.data.storage import expand_user, storage_at
from raytricks.errors import DataError
from raytricks.parts.hooks import wanted_arguments

DEFAULT_VAL_FRACTION = 0.2


@dataclass(frozen=True)
class FoundSplits:
    """The splits that the data itself has; `evaluation` and `test` are None where it has none."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    evaluation: Split | None = None
    test: Split | None = None
    notes: tuple[str, ...] = ()


def find_data(config: DataConfig, seed: int) -> DatasetSplits:
    """Scan the data and decide what is trained on and what is evaluated.

    Args:
        seed: draws the held-out part, where one is held out and data.split_seed does not.

    Raises:
        DataError: nothing there, or unusable.
    """
    return _splits(config, seed if config.split_seed is None else config.split_seed, find_splits(config))


def find_splits(config: DataConfig) -> FoundSplits:
    """Scan the data, holding nothing out; raises DataError when nothing is there, or it is unusable."""
    if config.part is not None:
        return _own_splits(config)
    source = config.source
    if source == "auto":
        source = detect_source(config.path)
    if source == "digits":
        return FoundSplits("digits", digits.CLASS_NAMES, digits.load_digits_split())
    if source == "shards":
        packed = shards.load_shards(config.path or "")
        return FoundSplits(packed.name, packed.class_names, packed.train, packed.evaluation, packed.test, packed.notes)
    path = Path(config.path or "").expanduser()
    if source == "folder":
        found = folder.load_folder(path)
        return FoundSplits(
            path.resolve().name, found.class_names, found.train, found.evaluation, found.test, found.notes
        )
    if source == "fashion_mnist":
        path = idx.find_fashion_mnist(config.path, config.download)
    train, test = (idx.load_idx_split(path, split) for split in ("train", "t10k"))
    _require_labels_in_range(train, test, path)
    names = _idx_class_names(source, path, train)
    return FoundSplits(path.resolve().name if source == "idx" else source, names, train, test=test)


def _own_splits(config: DataConfig) -> FoundSplits:
    """Open a source of the user's own: splits, or anything that `splits_of_dataset` takes."""
    part = config.part
    assert part is not None and part.hooks is not None and part.hooks.build is not None
    build = part.hooks.build
    offered = {"config": config, "settings": config}
    opened = build(**{name: offered[name] for name in wanted_arguments("build", build)})
    return opened if isinstance(opened, FoundSplits) else splits_of_dataset(opened, part.title)


def splits_of_dataset(dataset: Any, name: str) -> FoundSplits:
    """Return the splits of datasets of torch: objects with a length whose items are (image, label).

    Args:
        dataset: one, all of it training images; or {"train": ..., "val": ..., "test": ...}; or (train, val).
        name: short, for run names.

    Raises:
        DataError: something else, or an item that is no (image, label).
    """
    if isinstance(dataset, tuple | list) and len(dataset) == 2 and all(hasattr(d, "__getitem__") for d in dataset):
        dataset = {"train": dataset[0], "val": dataset[1]}
    if not isinstance(dataset, Mapping):
        dataset = {"train": dataset}
    unknown = sorted(set(dataset) - {"train", "val", "test"})
    if "train" not in dataset or unknown:
        raise DataError(f"{name}: the splits must be train and, if there are, val and test; got {sorted(dataset)}")
    labels = {split: labels_of(of_split, f"{name}, {split}") for split, of_split in dataset.items()}
    names = class_names_of(dataset["train"], max(int(of_split.max()) for of_split in labels.values()) + 1)
    splits = {
        split: Split(labels[split], dataset_images(of_split, f"{name}, {split}"), f"{name}, {split}")
        for split, of_split in dataset.items()
    }
    return FoundSplits(name, names, splits["train"], splits.get("val"), splits.get("test"))


def detect_source(path: str | None) -> Literal["idx", "folder", "shards"]:
    """Return what a path holds, by its files."""
    if path is None:
        raise DataError("data.path is not set and data.source is auto; name a directory, or set data.source=digits")
    if "://" in path or holds_shards(storage_at(expand_user(path))):
        return "shards"  # nothing else is read from a URL
    return "idx" if idx.holds_idx_files(Path(path).expanduser()) else "folder"


def _idx_class_names(source: str, path: Path, train: Split) -> tuple[str, ...]:
    num_classes = int(train.labels.max()) + 1
    is_fashion = source == "fashion_mnist" or "fashion" in path.resolve().name.lower()
    if is_fashion and num_classes <= len(idx.FASHION_MNIST_CLASSES):
        return idx.FASHION_MNIST_CLASSES
    return tuple(str(label) for label in range(num_classes))


def _require_labels_in_range(train: Split, test: Split, path: Path) -> None:
    num_classes = int(train.labels.max()) + 1
    if num_classes < 2:
        raise DataError(f"{path}: all training labels are 0; at least 2 classes are needed")
    if int(test.labels.max()) >= num_classes:
        raise DataError(
            f"{path}: a test label is {test.labels.max()}, the training labels end at {num_classes - 1}; "
            "the files do not belong together"
        )


def _splits(config: DataConfig, seed: int, found: FoundSplits) -> DatasetSplits:
    """Decide the evaluation split: an own one, a held-out part, or the test split."""
    train, evaluation, test, notes = found.train, found.evaluation, found.test, found.notes
    fraction = config.val_fraction
    if fraction is None:
        fraction = 0.0 if evaluation or test else DEFAULT_VAL_FRACTION
    if fraction > 0:
        if evaluation is not None:
            notes += (f"data.val_fraction={fraction:g} is used instead of the {evaluation.origin} folder",)
        train, evaluation = hold_out(train, fraction, seed, found.class_names)
    if evaluation is None:
        evaluation, test = test, None
    if evaluation is None:
        raise DataError(f"{found.name}: nothing to evaluate on; set data.val_fraction above 0 or add a val/ folder")
    return DatasetSplits(found.name, tuple(found.class_names), train, evaluation, test, notes)
