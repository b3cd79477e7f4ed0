"""Which images a study ranks its trials on, and which it scores the winner on: never the same."""

from dataclasses import replace

from raytricks.config.schema import ExperimentConfig
from raytricks.data.loading import find_data
from raytricks.data.splits import DatasetSplits, hold_out


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
