"""The images of a trial, prepared as its own settings say."""

from raytricks.config.schema import DataConfig, ExperimentConfig
from raytricks.data.prepared import PreparedData, prepare_data
from raytricks.data.splits import DatasetSplits

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
