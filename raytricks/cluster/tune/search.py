"""Optuna's samplers as the source of numbered trials: they learn from all trials of the study, earlier ones too."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState as OptunaState
from ray.tune.search import Searcher

from raytricks.config.search_space import AnyKind, Choice, Grid
from raytricks.tuning.space import unit_to_value, value_to_unit
from raytricks.tuning.study_task import StudyTask
from raytricks.tuning.trial_files import read_state, trial_directory


class NumberedOptuna(Searcher):
    """Suggests {"number": n, "values": ...}; lists are categories, all else moves on its distribution's axis.

    A trial that was begun before gets the values of its trial.json again. The first trial is the
    default config, which may lie outside of what is searched: the sampler then learns nothing of it.
    """

    def __init__(self, task: StudyTask, metric: str, mode: str) -> None:
        super().__init__(metric=metric, mode=mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._task = task
        self._space = task.base.tune.space
        self._distributions = {key: _distribution(kind) for key, kind in self._space.items()}
        self._study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=task.base.seed, constant_liar=True)
        )
        self._num_suggested = 0
        self._asked: dict[str, optuna.Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the config of the next trial."""
        number = self._num_suggested
        if number >= self._task.num_trials:
            return Searcher.FINISHED
        self._num_suggested += 1
        values = self._fixed_values(number)
        if values is None or self._enqueue(values):
            self._asked[trial_id] = self._study.ask(self._distributions)
        if values is None:
            params = self._asked[trial_id].params
            values = {key: _value(kind, params[key]) for key, kind in self._space.items()}
        return {"number": number, "values": values}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn what a trial has reached so far."""
        if trial_id in self._asked and result.get(self.metric) is not None:
            self._asked[trial_id].report(result[self.metric], result["training_iteration"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn the result of a trial; one that was stopped or has failed counts as cut off where it was."""
        trial = self._asked.pop(trial_id, None)
        if trial is None:
            return
        score = None if error or not result else result.get(self.metric)
        if score is not None and result and result["training_iteration"] >= self._task.base.recipe.epochs:
            self._study.tell(trial, score)
            return
        if score is not None and result:
            trial.report(score, result["training_iteration"])
        self._study.tell(trial, state=OptunaState.PRUNED)

    def _fixed_values(self, number: int) -> dict[str, Any] | None:
        """Return the values of a trial that is not for the sampler to choose."""
        state = read_state(trial_directory(self._task.trials_dir, number))
        if state is not None:
            return state.root_values
        return self._task.points[number] if number < len(self._task.points) else None

    def _enqueue(self, values: dict[str, Any]) -> bool:
        try:
            self._study.enqueue_trial({key: _param(kind, values[key]) for key, kind in self._space.items()})
        except ValueError:
            return False
        return True


def _distribution(kind: AnyKind) -> BaseDistribution:
    if isinstance(kind, Choice | Grid):
        return CategoricalDistribution(tuple(range(len(kind.values))))
    return FloatDistribution(0.0, 1.0)


def _value(kind: AnyKind, param: Any) -> Any:
    return kind.values[param] if isinstance(kind, Choice | Grid) else unit_to_value(kind, param)


def _param(kind: AnyKind, value: Any) -> Any:
    value = tuple(value) if isinstance(value, list) else value
    if isinstance(kind, Choice | Grid):
        if value not in kind.values:
            raise ValueError(f"{value!r} is not listed")
        return kind.values.index(value)
    return value_to_unit(kind, value)
