"""Find the data set that a config names, without decoding its images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raytricks.config.schema import DataConfig
from raytricks.data.shard_format import holds_shards
from raytricks.data.sources import digits, folder, idx, shards
from raytricks.data.splits import DatasetSplits, Split, hold_out
from raytricks.data.storage import expand_user, storage_at
from raytricks.errors import DataError

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
