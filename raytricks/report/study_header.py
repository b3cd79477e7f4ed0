"""What a study says before its first trial and after its last."""

from collections.abc import Sequence
from pathlib import Path

from raytricks.config.schema import ExperimentConfig
from raytricks.config.search_space import Choice, Distribution, Grid, QUniform
from raytricks.data.splits import DatasetSplits
from raytricks.report.progress import duration
from raytricks.tuning.analysis import value_text
from raytricks.tuning.certificate import certificate_lines
from raytricks.tuning.outcome import StudyResult
from raytricks.tuning.space import default_values, space_warnings


def study_header_lines(
    config: ExperimentConfig,
    selection: DatasetSplits,
    test_images: int,
    *,
    num_trials: int,
    rungs: Sequence[int],
    study_dir: Path | None,
) -> list[str]:
    """Return the header, one "label  text" line a subject.

    Args:
        selection: the data of the trials.
        test_images: on which default and winner are scored at the end.
        rungs: epochs at which trials may be stopped.
    """
    tune, recipe = config.tune, config.recipe
    judged = f", judged after epoch {', '.join(map(str, rungs))}" if rungs else ""
    rows = [
        ("study", f"{study_dir or 'a plan, nothing is written'}, seed {config.seed}"),
        ("data", f"{selection.name}: {len(selection.train):,} images train each trial"),
        ("ranked", f"on {len(selection.evaluation):,} images ({selection.evaluation.origin}), by top-1"),
        ("test", f"{test_images:,} images, not looked at before default and winner are retrained"),
        ("trials", f"{num_trials} of {recipe.epochs} epochs each; {tune.sampler}, {tune.scheduler}{judged}"),
    ]
    default = default_values(config)
    rows += [
        ("search", f"{key}: {_range_text(d)} (default {value_text(default[key])})") for key, d in tune.space.items()
    ]
    rows += [("warning", line) for line in space_warnings(config)]
    return [f"{label:9} {text}" for label, text in rows]


def outcome_lines(result: StudyResult, elapsed_s: float) -> list[str]:
    """Return the lines after the last trial: counts, winner, certificate, files, what to do next."""
    statuses = [trial.status for trial in result.trials]
    counts = ", ".join(f"{statuses.count(kind)} {kind}" for kind in dict.fromkeys(statuses))
    lines = [f"trials    {len(result.trials)}: {counts}"]
    best = next((trial for trial in result.trials if trial.number == result.best), None)
    if best is not None:
        values = ", ".join(f"{key} {value_text(value)}" for key, value in best.values.items())
        name = "trial 0, the default" if best.number == 0 else f"trial {best.number}"
        lines.append(f"best      {name}: {best.score:.2%} of the images it was chosen on; {values}")
    lines += [
        f"rung      after epoch {epoch} the order agreed with the final one by {correlation:+.2f} (Spearman)"
        for epoch, correlation in result.rung_correlation.items()
    ]
    if result.certificate is not None:
        lines += certificate_lines(result.certificate)
    lines += [
        f"time      {duration(elapsed_s)}",
        f"files     {result.study_dir}: report.html, trials.csv, results.parquet, trials/",
    ]
    if best is not None:
        lines += ["next", f"  train   raytricks train {result.study_dir}/best.yaml"]
    return lines


def _range_text(distribution: Distribution) -> str:
    if isinstance(distribution, Choice | Grid):
        return ", ".join(value_text(value) for value in distribution.values)
    step = f" in steps of {value_text(distribution.q)}" if isinstance(distribution, QUniform) else ""
    scale = " (log)" if distribution.kind == "loguniform" else ""
    also = "".join(f", or {value_text(value)}" for value in distribution.also)
    return f"{value_text(distribution.low)} to {value_text(distribution.high)}{step}{scale}{also}"
