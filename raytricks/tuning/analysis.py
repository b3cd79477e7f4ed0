"""What the trials of a study say: the best, which key mattered, whether early scores foretell late ones.

Pure functions of the trials' outcomes. scikit-learn and scipy are imported where they are used:
together they cost seconds, which a command that only lists trials must not pay.
"""

from collections.abc import Sequence
import json
import math
from typing import Any, Literal

import numpy as np

from raytricks.tuning.outcome import TrialOutcome

LOG_SPAN = 20
"""Positive values whose largest is more than this many times their smallest are read on a log scale."""

_FEWEST_CORRELATED = 3
_FEWEST_EXPLAINED = 5
_TREES = 50
_REPEATS = 20

Scale = Literal["linear", "log", "category"]


def finished_trials(trials: Sequence[TrialOutcome]) -> list[tuple[TrialOutcome, float]]:
    """Return each finished trial with its score, by number."""
    scored = [(trial, trial.score) for trial in trials]
    return sorted(((t, score) for t, score in scored if score is not None), key=lambda pair: pair[0].number)


def best_trial(trials: Sequence[TrialOutcome]) -> int | None:
    """Return the number of the finished trial of the highest score, None without one.

    Equal scores: the lower number, so the default wins a tie.
    """
    finished = finished_trials(trials)
    return max(finished, key=lambda pair: (pair[1], -pair[0].number))[0].number if finished else None


def best_so_far(trials: Sequence[TrialOutcome]) -> list[tuple[float, float]]:
    """Return (seconds after the study's start, score) of each finished trial that beat all before it, in time."""
    line: list[tuple[float, float]] = []
    for elapsed_s, score in sorted((t.elapsed_s[-1], score) for t, score in finished_trials(trials)):
        if not line or score > line[-1][1]:
            line.append((elapsed_s, score))
    return line


def pareto_front(trials: Sequence[TrialOutcome]) -> list[int]:
    """Return the numbers of the finished trials that no other beats in training time and score, fastest first.

    One beats another when it is no worse in both and better in one.
    """
    front: list[int] = []
    best, best_train_s = -math.inf, math.inf
    for trial, score in sorted(finished_trials(trials), key=lambda pair: (pair[0].train_s, -pair[1])):
        if score > best or (score == best and trial.train_s == best_train_s):
            front.append(trial.number)
            best, best_train_s = score, trial.train_s
    return front


def rung_correlation(trials: Sequence[TrialOutcome], rungs: Sequence[int]) -> dict[int, float]:
    """Return Spearman's correlation of the top-1 after each rung with the final score.

    Only finished trials count, which the scheduler's choice at the rungs has already thinned out.

    Args:
        rungs: epochs, counted from 1.

    Returns:
        Rung -> correlation in [-1, 1]; no entry for a rung that fewer than 3 finished trials passed or
        where all scores are equal, early or final.
    """
    from scipy.stats import rankdata

    correlations = {}
    for rung in rungs:
        pairs = [(trial.top1[rung - 1], score) for trial, score in finished_trials(trials) if trial.epochs >= rung]
        early, final = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if len(pairs) >= _FEWEST_CORRELATED and len(set(early)) > 1 and len(set(final)) > 1:
            correlations[rung] = float(np.corrcoef(rankdata(early), rankdata(final))[0, 1])
    return correlations


def knob_importance(trials: Sequence[TrialOutcome], seed: int) -> dict[str, tuple[float, float]]:
    """Return how much of what a random forest knows about the score it owes to each searched key.

    Permutation importance of a forest fitted to the finished trials: the loss of R^2 when one key's values are
    shuffled, with negative losses counted as 0. Trials that were stopped or failed have no score and are left
    out, although they say something too. With few trials it is a rough guide, and never the effect of a key.

    Args:
        seed: of the forest and the shuffles.

    Returns:
        Key -> (mean, standard deviation over the shuffles); the means add up to 1. Empty with fewer than 5
        finished trials, when all scores are equal, and when no key explains anything.
    """
    finished = finished_trials(trials)
    scores = [score for _, score in finished]
    keys = list(dict.fromkeys(key for trial, _ in finished for key in trial.values))
    if len(finished) < _FEWEST_EXPLAINED or len(set(scores)) == 1 or not keys:
        return {}
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    features = np.column_stack([_encoded([trial.values.get(key) for trial, _ in finished]) for key in keys])
    forest = RandomForestRegressor(n_estimators=_TREES, random_state=seed).fit(features, scores)
    losses = permutation_importance(forest, features, scores, n_repeats=_REPEATS, random_state=seed)["importances"]
    losses = losses.clip(min=0)
    total = losses.mean(axis=1).sum()
    if total == 0:
        return {}
    return {key: (float(row.mean() / total), float(row.std() / total)) for key, row in zip(keys, losses, strict=True)}


def scale_of(values: Sequence[Any]) -> Scale:
    """Return the scale on which a key's values are read: numbers are linear or log, all else are categories."""
    if not values or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return "category"
    return "log" if min(values) > 0 and max(values) > LOG_SPAN * min(values) else "linear"


def value_text(value: Any) -> str:
    """Return a config value as people read it: texts bare, numbers short, the rest as in YAML's flow style."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    return json.dumps(value, default=str)


def _encoded(values: Sequence[Any]) -> np.ndarray:
    """Return a key's values as numbers, [trials]."""
    scale = scale_of(values)
    if scale != "category":
        numbers = np.array(values, dtype=float)
        return np.log10(numbers) if scale == "log" else numbers
    codes = {text: code for code, text in enumerate(sorted({repr(value) for value in values}))}
    return np.array([codes[repr(value)] for value in values], dtype=float)
