"""Labelled images to evaluate a model on: its own run's, or other data, whose classes are mapped by name."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from raytricks.config import load_config
from raytricks.config.schema import DataConfig
from raytricks.data.class_names import some
from raytricks.data.evaluation_input import EvaluationInput
from raytricks.data.loading import find_data, find_splits
from raytricks.data.prepared import LabelledImages, open_undecoded
from raytricks.data.splits import ArrayImages, DatasetSplits, FileImages, FoundSplits, ShardImages, Split
from raytricks.errors import ConfigError, DataError
from raytricks.inference.trained_model import TrainedModel
from raytricks.training.run_directory import require_same_data

SplitName = Literal["auto", "train", "val", "test", "all"]
NAMED_DATA = ("digits", "fashion_mnist")


@dataclass(frozen=True)
class Labelled:
    """Images of which the answer is known.

    Attributes:
        images: to be read for evaluation, with the model's label numbers.
        names: (N,) of the images, for people.
        description: shown to the user.
        notes: what was left out.
    """

    images: LabelledImages
    names: tuple[str, ...]
    description: str
    notes: tuple[str, ...]


def labelled_images(
    model: TrainedModel, place: str | None, run_dir: Path | None, split: SplitName = "auto"
) -> Labelled:
    """Find the images to evaluate on, without decoding one.

    Args:
        place: a folder of class folders, a table, shards, Parquet, or digits or fashion_mnist; None: what the run
            evaluated.
        run_dir: of the model.
        split: auto: what the run evaluated; of other data the test images, else the evaluation images, else all.

    Raises:
        DataError: nothing there, no class in common, or no such split; or the run's data has changed.
        ConfigError: neither data nor a run that names its own.
    """
    found, chosen = _found(place, run_dir, split)
    part = _joined([getattr(found, name) for name in chosen])
    labels, notes = _mapped(part.labels, found.class_names, model.class_names, found.name)
    kept = np.flatnonzero(labels >= 0)
    part = part.subset(kept, part.origin)
    return Labelled(
        open_for(replace(part, labels=labels[kept]), model.preprocess),
        names_of(part),
        f"{found.name}: {part.origin}",
        notes,
    )


def open_for(split: Split, preprocess: EvaluationInput) -> LabelledImages:
    """Return a split whose images are decoded, as a model evaluates them, when they are read."""
    return LabelledImages(
        open_undecoded(split.images, preprocess.spec(), preprocess.decoder), split.labels, split.origin
    )


def run_of(model: Path) -> Path | None:
    """Return the directory of the run that a model's path lies in; None where it lies in none."""
    candidates = (model, model.parent, model.parent.parent)
    return next((place for place in candidates if (place / "config.yaml").is_file()), None)


def _found(
    place: str | None, run_dir: Path | None, split: SplitName
) -> tuple[FoundSplits | DatasetSplits, tuple[str, ...]]:
    if place is None:
        if run_dir is None:
            raise ConfigError("no data: the model lies in no run that names its own; give a folder, table or shards")
        config = load_config(run_dir / "config.yaml", of_run=True).config
        splits = find_data(config.data, config.seed)
        require_same_data(run_dir, splits)
        return splits, _chosen(splits, "val" if split == "auto" else split)
    if place in NAMED_DATA and not Path(place).exists():
        config = DataConfig(source="digits" if place == "digits" else "fashion_mnist")
    else:
        config = DataConfig(path=place)
    found = find_splits(config)
    if split == "auto":
        split = "test" if found.test is not None else "val" if found.evaluation is not None else "all"
    return found, _chosen(found, split)


def _chosen(found: FoundSplits | DatasetSplits, split: str) -> tuple[str, ...]:
    fields = {"train": "train", "val": "evaluation", "test": "test"}
    there = [name for name, field in fields.items() if getattr(found, field) is not None]
    if split == "all":
        return tuple(fields[name] for name in there)
    if split not in there:
        raise DataError(f"{found.name} has no {split} images; --split may be {', '.join(there)} or all")
    return (fields[split],)


def _joined(splits: list[Split]) -> Split:
    if len(splits) == 1:
        return splits[0]
    images = splits[0].images
    labels = np.concatenate([split.labels for split in splits])
    if isinstance(images, ArrayImages):
        joined = ArrayImages(np.concatenate([split.images.pixels for split in splits]))  # type: ignore[union-attr]
    elif isinstance(images, FileImages):
        parts = [split.images for split in splits]
        joined = FileImages(
            tuple(path for part in parts for path in part.paths),  # type: ignore[union-attr]
            np.concatenate([part.heights for part in parts]),
            np.concatenate([part.widths for part in parts]),
            all(part.is_grayscale for part in parts),
            any(part.is_deep for part in parts),
        )
    else:
        raise DataError("--split all is for folders, tables and arrays; evaluate the splits of shards one at a time")
    return Split(labels, joined, "all images")


def _mapped(
    labels: np.ndarray, theirs: tuple[str, ...], ours: tuple[str, ...], name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the model's numbers of labels, -1 where it has no class of the name, and what must be said of it."""
    numbers = {class_name: number for number, class_name in enumerate(ours)}
    table = np.array([numbers.get(class_name, -1) for class_name in theirs], np.int64)
    mapped = table[labels]
    unknown = [class_name for class_name in theirs if class_name not in numbers]
    if not (mapped >= 0).any():
        raise DataError(
            f"{name}: no image is of a class that the model knows; the data has {some(theirs, 5)}, the model "
            f"{some(ours, 5)}; classes are matched by name"
        )
    notes = ()
    if unknown:
        lost = int((mapped < 0).sum())
        notes += (f"{lost:,} images are left out, of classes that the model does not know: {some(unknown, 5)}",)
    absent = [ours[number] for number in sorted(set(range(len(ours))) - set(mapped.tolist()))]
    if absent:
        notes += (f"no image of {some(absent, 5)}: their recall is undefined",)
    return mapped, notes


def names_of(split: Split) -> tuple[str, ...]:
    """Return what people call each image of a split."""
    images = split.images
    if isinstance(images, FileImages):
        return images.paths
    if isinstance(images, ShardImages):
        return tuple(images.name(index) for index in range(len(images.rows)))
    return tuple(f"{split.origin}: image {index}" for index in range(len(split)))
