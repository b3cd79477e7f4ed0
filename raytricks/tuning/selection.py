"""Which images a study ranks its trials on, and which it scores the winner on: never the same."""

from dataclasses import replace

from raytricks.config.schema import ExperimentConfig
from raytricks.data.catalog import Catalog, hold_out
from raytricks.data.loading import find_data


def selection_catalog(config: ExperimentConfig, catalog: Catalog) -> Catalog:
    """Return the data of the trials: a train part, and a part held out of it on which they are ranked.

    Args:
        catalog: what `raytricks train` would use: its evaluation split is the test split here, unless it was
            held out of the training images beside a test split.

    Raises:
        DataError: too few images to hold some out.
    """
    if catalog.test is not None:
        return replace(catalog, test=None)
    seed = config.seed if config.data.split_seed is None else config.data.split_seed
    train, held_out = hold_out(catalog.train, config.tune.val_fraction, seed, catalog.class_names)
    return replace(catalog, train=train, evaluation=held_out, test=None)


def retraining_catalog(config: ExperimentConfig, catalog: Catalog) -> Catalog:
    """Return all training images, with the test split in the place of the evaluation split."""
    if catalog.test is None:
        return catalog
    return find_data(config.data.model_copy(update={"val_fraction": 0.0}), config.seed)
