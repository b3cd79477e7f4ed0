"""Find the data set that a config names, without decoding it; a kind of data is a row and a file in sources/."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from raytricks.config.schema import DataConfig
from raytricks.data.class_names import some
from raytricks.data.copies import conflict_note, copy_note
from raytricks.data.sources.dataset import class_names_of, dataset_images, labels_of
from raytricks.data.splits import WARNING, DatasetSplits, FoundSplits, Split, hold_out
from raytricks.errors import DataError
from raytricks.parts.hooks import wanted_arguments
from raytricks.parts.part import Part
from raytricks.parts.registry import named, of_kind

DEFAULT_VAL_FRACTION = 0.2


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
    row = config.part or named("source", config.source) or _row_that_holds(config.path)
    assert row.hooks is not None and row.hooks.build is not None
    offered = {"config": config, "settings": config}
    opened = row.hooks.build(**{name: offered[name] for name in wanted_arguments("build", row.hooks.build)})
    return opened if isinstance(opened, FoundSplits) else splits_of_dataset(opened, row.title)


def detect_source(path: str | None) -> str:
    """Return the name of the source that a path holds, by its files."""
    return _row_that_holds(path).name


def _row_that_holds(path: str | None) -> Part:
    if path is None:
        raise DataError("data.path is not set and data.source is auto; name a directory, or set data.source=digits")
    rows = [row for row in of_kind("source") if row.hooks is not None and row.hooks.holds is not None]
    return next(row for row in rows if row.hooks is not None and row.hooks.holds is not None and row.hooks.holds(path))


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


def _splits(config: DataConfig, seed: int, found: FoundSplits) -> DatasetSplits:
    """Decide the evaluation split: an own one, a held-out part, or the test split."""
    train, evaluation, test, notes = found.train, found.evaluation, found.test, found.notes
    class_names = tuple(found.class_names)
    if config.group is not None and train.groups is None:
        raise DataError(f"data.group is {config.group!r}, and {found.name} has no paths or columns to group images by")
    notes += _class_notes(found)
    fraction = config.val_fraction
    if fraction is None:
        fraction = 0.0 if evaluation or test else DEFAULT_VAL_FRACTION
    if fraction > 0:
        if evaluation is not None:
            notes += (f"data.val_fraction={fraction:g} is used instead of the {evaluation.origin} folder",)
        train, evaluation = hold_out(train, fraction, seed, class_names)
        if config.group is not None:
            evaluation = replace(evaluation, origin=f"{evaluation.origin} by {config.group}")
        notes += _held_out_notes(train, evaluation, fraction, class_names)
    if evaluation is None:
        evaluation, test = test, None
    if evaluation is None:
        raise DataError(f"{found.name}: nothing to evaluate on; set data.val_fraction above 0 or add a val/ folder")
    notes += _group_notes(train, evaluation, test)
    notes += conflict_note(train)
    for split in (evaluation, test):
        notes += () if split is None else copy_note(train, split)
    return DatasetSplits(found.name, class_names, train, evaluation, test, notes)


def _class_notes(found: FoundSplits) -> tuple[str, ...]:
    """Say which classes the splits lack; raises DataError for one that is to be scored and cannot be learned."""
    names = np.array(found.class_names, object)
    trained = _counts(found.train, names) > 0
    notes = ()
    if not trained.all():
        notes += (f"no training image of {some([*names[~trained]])}: no image will be taken for it",)
    for split in (found.evaluation, found.test):
        if split is None:
            continue
        present = _counts(split, names) > 0
        if (present & ~trained).any():
            raise DataError(
                f"{found.name}: {split.origin} has images of {some([*names[present & ~trained]])}, of which there are "
                "none to train on; add some or remove them"
            )
        if (trained & ~present).any():
            absent = some([*names[trained & ~present]])
            notes += (f"{split.origin} has no image of {absent}: what is there is scored",)
    return notes


def _held_out_notes(train: Split, held_out: Split, fraction: float, class_names: tuple[str, ...]) -> tuple[str, ...]:
    names = np.array(class_names, object)
    counts = _counts(train, names)
    whole = (counts > 0) & (_counts(held_out, names) == 0)
    notes = ()
    if whole.any():
        why = "images" if train.groups is None else "groups"
        listed = some([f"{name} ({count:,})" for name, count in zip(names[whole], counts[whole], strict=True)])
        notes += (f"too few {why} to hold some out, all stay in train and none is scored: {listed}",)
    share = len(held_out) / (len(train) + len(held_out))
    if abs(share - fraction) > 0.25 * fraction:
        what = "each class gives at least one image" if train.groups is None else "groups stay whole"
        notes += (
            f"data.val_fraction={fraction:g} asks for {fraction:.3g} of the images, {share:.3g} are held out: {what}",
        )
    return notes


def _group_notes(train: Split, evaluation: Split, test: Split | None) -> tuple[str, ...]:
    """Warn of groups that are trained on and scored, which flatters the score."""
    notes = ()
    for split in (evaluation, test):
        shared = set() if split is None else set(train.groups or ()) & set(split.groups or ())
        if shared and split is not None:
            listed = some(sorted(shared), 3)
            text = f"{len(shared):,} groups of {split.origin} are in train too ({listed}): scores flatter; move them"
            notes += (WARNING + text,)
    return notes


def _counts(split: Split, class_names: np.ndarray) -> np.ndarray:
    return np.bincount(split.labels, minlength=len(class_names))
