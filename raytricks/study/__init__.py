"""The Python API of a search, which `raytricks tune` calls too: trials, the winner, its certificate, the report.

launch       one launch of a study, from a plan to a finished directory
retraining   default and winner with fresh seeds
results      what was found, read from the trials' files and written for people
plan         what it will cost
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raytricks.plan import Overrides
from raytricks.report.progress import Reporter
from raytricks.study.launch import open_launch
from raytricks.study.plan import forecast_study
from raytricks.study.results import Study

__all__ = ["Study", "forecast_study", "open_launch", "tune"]


def tune(
    target: str | Path | None = None,
    overrides: Overrides = (),
    *,
    space: Mapping[str, Any] | None = None,
    num_trials: int | None = None,
    resume: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Study:
    """Search for better settings, retrain the winner against the default, and write best.yaml and a report.

    Args:
        target: a config file or a directory of images; not with `resume`.
        overrides: dotted settings; a mapping when `space` or `num_trials` is given.
        space: dotted key -> list of values or {"kind": "uniform", "low": 0, "high": 0.2}; as tune.space.
        num_trials: as tune.num_trials.
        resume: directory of a study that was stopped; finished trials are not run again. "auto": the study that
            target and overrides name (`name=...`), when there is one, else a new one.
        reporter: where progress goes; None prints nothing.

    Raises:
        NoGoodTrial: every trial failed.
        RaytricksError: see raytricks.errors for the kinds.
    """
    reporter = reporter or Reporter("quiet")
    try:
        return open_launch(
            target, overrides, space=space, num_trials=num_trials, resume=resume, reporter=reporter
        ).run()
    finally:
        reporter.close()
