"""The schedulers of Ray Tune, set up so that they judge trials by epochs and never inside the warmup."""

from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from raytricks.recipe.phases import config_at
from raytricks.tuning.pbt import explore
from raytricks.tuning.rungs import first_rung, judged_span
from raytricks.tuning.study_task import StudyTask
from raytricks.tuning.trial_files import epoch_records, read_state, trial_config, trial_directory

METRIC, MODE, TIME, JUDGED_TIME = "val_top1", "max", "training_iteration", "judged_epochs"
_EXPLORE_STREAM = 5  # keeps this generator apart from the others made of the same seed


def make_scheduler(task: StudyTask) -> TrialScheduler:
    """Return the scheduler that the study's config names."""
    config = task.base
    if config.tune.scheduler == "asha":
        return AsyncHyperBandScheduler(
            time_attr=TIME,
            max_t=config.recipe.epochs,
            grace_period=first_rung(config),
            reduction_factor=config.tune.reduction_factor,
        )
    if config.tune.scheduler == "hyperband":
        return SteadyHyperBand(
            time_attr=JUDGED_TIME,
            max_t=judged_span(config),
            reduction_factor=config.tune.reduction_factor,
            # else the last ones of a bracket end at the rung below max_t where it is no power of the factor
            stop_last_trials=False,
        )
    if config.tune.scheduler == "pbt":
        return PopulationOfFiles(task)
    return FIFOScheduler()


class SteadyHyperBand(HyperBandScheduler):
    """HyperBand that goes on when a trial fails after its bracket's first rung."""

    def _process_bracket(self, tune_controller: Any, bracket: Any) -> str:
        try:
            return super()._process_bracket(tune_controller, bracket)
        finally:
            # Ray 2.60 leaves it set, and then nobody wakes the trials that wait for one that has failed
            bracket.is_being_processed = False


class PopulationOfFiles(PopulationBasedTraining):
    """Population-based training whose trials keep their numbers and find their values in their files."""

    def __init__(self, task: StudyTask) -> None:
        config = task.base
        self._interval = config.tune.perturb_every_epochs or max(1, config.recipe.epochs // 10)
        super().__init__(
            time_attr=TIME,
            perturbation_interval=self._interval,
            burn_in_period=first_rung(config),
            custom_explore_fn=dict,  # one must be given; `_get_new_config` stands for it
            log_config=False,
            require_attrs=False,  # a failed trial reports no score
        )
        self._task = task
        self._rng = np.random.default_rng((config.seed, _EXPLORE_STREAM))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take in a trial; one that has made epochs before was judged then."""
        super().on_trial_add(tune_controller, trial)
        num_made = len(epoch_records(trial_directory(self._task.trials_dir, trial.config["number"])))
        self._trial_state[trial].last_perturbation_time = num_made // self._interval * self._interval

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict, dict]:
        """Return the config with which `trial` goes on from the other's state."""
        donor = read_state(trial_directory(self._task.trials_dir, trial_to_clone.config["number"]))
        assert donor is not None
        config = config_at(trial_config(self._task.base, donor), self._task.base.recipe.epochs)
        values = explore(self._task.base, config, donor.values, self._rng)
        return {"number": trial.config["number"], "values": values}, {}
