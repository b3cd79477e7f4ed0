"""The trials of a study as a task, in plain values that travel to where they are trained; the images of each.

A study never ranks its trials on the images that it scores the winner on.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raytricks.config.schema import DataConfig, ExperimentConfig
from raytricks.data.loading import find_data
from raytricks.data.prepared import PreparedData, prepare_data
from raytricks.data.splits import DatasetSplits, hold_out


@dataclass(frozen=True, kw_only=True)
class StudyTask:
    """Trials to train.

    Attributes:
        base: resolved, with its tune section and absolute paths; trial 0 is as it is.
        splits: of the search: its evaluation split is held out of the training images, its test is None.
        data: of `base`.
        trials_dir: holds a directory a trial; on storage that all nodes see.
        points: values of trial 0, 1, ...; with sampler optuna, which draws the others, of trial 0 only.
        num_trials: how many trials there are.
        configs: the whole config of each trial, with its seed; what `points` says is then only noted. None: the
            base with the trial's point.
        deadline: unix time after which no trial but the first begins.
    """

    base: ExperimentConfig
    splits: DatasetSplits
    data: PreparedData
    trials_dir: Path
    points: tuple[dict[str, Any], ...]
    num_trials: int
    configs: tuple[ExperimentConfig, ...] | None = None
    deadline: float | None = None

    def seed_of(self, number: int) -> int:
        """Return the training seed of a trial."""
        return self.base.seed if self.configs is None else self.configs[number].seed


def selection_splits(config: ExperimentConfig, splits: DatasetSplits) -> DatasetSplits:
    """Return the data of the trials: a train part, and a part held out of it on which they are ranked.

    Args:
        splits: what `raytricks train` would use: its evaluation split is the test split here, unless it was
            held out of the training images beside a test split.

    Raises:
        DataError: too few images to hold some out.
    """
    if splits.test is not None:
        return replace(splits, test=None)
    seed = config.seed if config.data.split_seed is None else config.data.split_seed
    train, held_out = hold_out(splits.train, config.tune.val_fraction, seed, splits.class_names)
    return replace(splits, train=train, evaluation=held_out, test=None)


def retraining_splits(config: ExperimentConfig, splits: DatasetSplits) -> DatasetSplits:
    """Return all training images, with the test split in the place of the evaluation split."""
    if splits.test is None:
        return splits
    return find_data(config.data.model_copy(update={"val_fraction": 0.0}), config.seed)


_PER_RUN = ("shift_pixels", "crop_scale", "crop_aspect", "horizontal_flip", "augmentation_seed", "train_size_ramp")
"""Settings that every run applies to the same prepared images."""


class TrialData:
    """Prepares images for trials and keeps them: those of trials with like settings are the same.

    Args:
        splits: of all trials.
        config: of the study.
        data: prepared for `config`.
    """

    def __init__(self, splits: DatasetSplits, config: ExperimentConfig, data: PreparedData) -> None:
        self._splits = splits
        self._kept = {_key(config.data): data}

    def of(self, config: ExperimentConfig) -> PreparedData:
        """Return the images of a trial.

        Raises:
            DataError: an image cannot be decoded.
        """
        key = _key(config.data)
        if key not in self._kept:
            self._kept[key] = prepare_data(self._splits, config.data)
        return self._kept[key]


def _key(data: DataConfig) -> str:
    return data.model_dump_json(exclude=set(_PER_RUN))
