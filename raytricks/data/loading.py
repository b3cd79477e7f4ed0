"""Find the data set that a config names, without decoding its images."""

from pathlib import Path

from raytricks.config.schema import DataConfig
from raytricks.data.catalog import Catalog, Split, hold_out
from raytricks.data.sources import digits, folder, idx
from raytricks.errors import DataError

DEFAULT_VAL_FRACTION = 0.2


def find_data(config: DataConfig, seed: int) -> Catalog:
    """Scan the data and decide what is trained on and what is evaluated.

    Args:
        seed: draws the held-out part, where one is held out.

    Raises:
        DataError: nothing there, or unusable.
    """
    source = config.source
    if source == "auto":
        source = _detect(config.path)
    if source == "digits":
        name, names, train, own = "digits", digits.CLASS_NAMES, digits.load_digits_split(), None
        return _catalog(config, seed, name, names, train, own, None, ())
    path = Path(config.path or "").expanduser()
    if source == "folder":
        found = folder.load_folder(path)
        name, names, train, own = path.resolve().name, found.class_names, found.train, found.evaluation
        return _catalog(config, seed, name, names, train, own, found.test, found.notes)
    if source == "fashion_mnist":
        path = idx.find_fashion_mnist(config.path, config.download)
    train, test = (idx.load_idx_split(path, split) for split in ("train", "t10k"))
    _require_labels_in_range(train, test, path)
    names = _idx_class_names(source, path, train)
    name = path.resolve().name if source == "idx" else source
    return _catalog(config, seed, name, names, train, None, test, ())


def _detect(path: str | None) -> str:
    if path is None:
        raise DataError("data.path is not set and data.source is auto; name a directory, or set data.source=digits")
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


def _catalog(
    config: DataConfig,
    seed: int,
    name: str,
    class_names: tuple[str, ...],
    train: Split,
    evaluation: Split | None,
    test: Split | None,
    notes: tuple[str, ...],
) -> Catalog:
    """Decide the evaluation split: an own one, a held-out part, or the test split."""
    fraction = config.val_fraction
    if fraction is None:
        fraction = 0.0 if evaluation or test else DEFAULT_VAL_FRACTION
    if fraction > 0:
        if evaluation is not None:
            notes += (f"data.val_fraction={fraction:g} is used instead of the {evaluation.origin} folder",)
        train, evaluation = hold_out(train, fraction, seed, class_names)
    if evaluation is None:
        evaluation, test = test, None
    if evaluation is None:
        raise DataError(f"{name}: nothing to evaluate on; set data.val_fraction above 0 or add a val/ folder")
    return Catalog(name, tuple(class_names), train, evaluation, test, notes)
