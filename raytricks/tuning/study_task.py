"""The trials of a study as a task to carry out: plain values that travel to where they are trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytricks.config import ExperimentConfig
from raytricks.data.prepared import PreparedData
from raytricks.data.splits import DatasetSplits


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
