"""What a study found: read from its trials' files, written as a table, a page and a config."""

from dataclasses import dataclass
import json
from pathlib import Path
import shlex
import time
from typing import Any

from raytricks.config import ExperimentConfig, load_config
from raytricks.report.study_lines import trials_table, write_results_parquet, write_trials_csv
from raytricks.report.study_page import write_study_page
from raytricks.tuning import study_directory as files
from raytricks.tuning.analysis import best_trial, knob_importance, rung_correlation
from raytricks.tuning.certificate import certificate_lines
from raytricks.tuning.outcome import Certificate, StudyResult
from raytricks.tuning.rungs import rungs
from raytricks.tuning.space import searched_keys
from raytricks.tuning.study_directory import PAGE_FILE, TRIALS
from raytricks.tuning.trial_files import read_outcomes, trial_directory


@dataclass(frozen=True)
class Study:
    """A finished search.

    Attributes:
        best_config: a plain training config, as in best.yaml; None when no trial finished.
    """

    result: StudyResult
    best_config: ExperimentConfig | None

    @property
    def study_dir(self) -> Path:
        """Where all of it is."""
        return Path(self.result.study_dir)

    @property
    def trials(self):
        """The trials as a pandas DataFrame, one row each."""
        return trials_table(self.result)

    def report(self) -> Path:
        """Return the report page, a file that opens in any browser without a network."""
        return self.study_dir / PAGE_FILE


def read_result(
    config: ExperimentConfig,
    study_dir: Path,
    *,
    data_name: str,
    started_at: float,
    sizes: dict[str, int],
    certificate: Certificate | None,
) -> StudyResult:
    """Read the trials of a study and work out what they say.

    Args:
        config: of the study.
        started_at: unix seconds.
        sizes: num_selection and num_test, images.
    """
    trials = read_outcomes(study_dir / TRIALS, started_at)
    return StudyResult(
        name=study_dir.name,
        study_dir=str(study_dir),
        data_name=data_name,
        keys=searched_keys(config),
        trials=trials,
        best=best_trial(trials),
        rung_correlation=rung_correlation(trials, rungs(config)),
        importance=knob_importance(trials, config.seed),
        certificate=certificate,
        provenance=_provenance(config, study_dir, started_at, sizes),
    )


def _provenance(config: ExperimentConfig, study_dir: Path, started_at: float, sizes: dict[str, int]) -> dict[str, Any]:
    run = json.loads((study_dir / "run.json").read_text())
    first, last = run["launches"][0], run["launches"][-1]
    return {
        "command": shlex.join(["raytricks", *first["argv"][1:]]),
        "seed": config.seed,
        "selection images": sizes["num_selection"],
        "test images": sizes["num_test"],
        "labels sha256": run["data"]["labels_sha256"],
        **{f"version of {name}": version for name, version in last["versions"].items() if version},
        "git commit": (last.get("git") or {}).get("commit"),
        "started at": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started_at)),
        "seconds": round(time.time() - started_at),
    }


def trial_config(study_dir: Path, number: int) -> ExperimentConfig:
    """Return the config that a trial was trained with."""
    return load_config(trial_directory(study_dir / TRIALS, number) / "config.yaml", of_run=True).config


def retrainable(final: ExperimentConfig, trial: ExperimentConfig) -> ExperimentConfig:
    """Return the config of a trial as `raytricks train` repeats it, on all training images.

    Args:
        final: of the study, with the data section that such a run has.
    """
    split = {"val_fraction": final.data.val_fraction, "split_seed": final.data.split_seed}
    own = {"name": None, "hardware": final.hardware, "output_dir": final.output_dir, "seed": final.seed}
    return trial.model_copy(update={"data": trial.data.model_copy(update=split), **own})


def write_study(final: ExperimentConfig, result: StudyResult) -> Study:
    """Write the files of a study that are for people; they are made anew each time.

    Args:
        final: as of `retrainable`.
    """
    study_dir = Path(result.study_dir)
    write_trials_csv(result, study_dir / files.TABLE_FILE)
    write_results_parquet(result, study_dir / files.PARQUET_FILE)
    write_study_page(result, study_dir / files.PAGE_FILE)
    if result.best is None:
        return Study(result, None)
    best = retrainable(final, trial_config(study_dir, result.best))
    files.write_best(study_dir, best, _comments(result))
    return Study(result, best)


def _comments(result: StudyResult) -> list[str]:
    """Return where best.yaml comes from and what it is worth."""
    best = next(trial for trial in result.trials if trial.number == result.best)
    facts = result.provenance
    versions = [f"{k.removeprefix('version of ')} {v}" for k, v in facts.items() if k.startswith("version of")]
    lines = [
        f"The best of {len(result.trials)} trials of {result.name} (trial {best.number}), found by raytricks tune.",
        "",
        f"Command:   raytricks train {result.study_dir}/best.yaml",
        f"Search:    {facts['command']}",
        f"Score:     {best.score:.2%} of {facts['selection images']:,} images held out of train (chosen on them)",
        f"Data:      {result.data_name}, labels sha256 {facts['labels sha256']}",
        f"Versions:  {', '.join(versions)}",
    ]
    return lines if result.certificate is None else [*lines, "", *certificate_lines(result.certificate)]
