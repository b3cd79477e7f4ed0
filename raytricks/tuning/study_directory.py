"""The directory of a study: made once, gone on with after any stop.

config.yaml     the resolved config with its search
run.json        versions, seed, command, git commit, host, data (as of a run)
study.json      when it started, the sizes of its splits
trials/NNN/     a run directory a trial, with trial.json
retrain/WINNER/NNN/  default and the winner, trained again
best.yaml, trials.csv, results.parquet, report.html, certificate.json
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
import json
from pathlib import Path
import shlex
import time
from typing import Any

from raytricks.config import dump_yaml, flatten, load_config
from raytricks.config.schema import ExperimentConfig
from raytricks.errors import ConfigError
from raytricks.files import write_atomically
from raytricks.training.run_directory import CONFIG_FILE, RUN_FILE

STUDY_FILE, CERTIFICATE_FILE, BEST_FILE = "study.json", "certificate.json", "best.yaml"
TRIALS, RETRAIN = "trials", "retrain"
RESUMABLE = (
    "tune.num_trials",
    "tune.budget_minutes",
    "tune.retrain_seeds",
    "tune.concurrent_trials",
    "hardware.max_restarts",
)
"""What a resumed study may change: how much of the same search is done."""
TABLE_FILE, PARQUET_FILE, PAGE_FILE = "trials.csv", "results.parquet", "report.html"


def create_study_directory(config: ExperimentConfig, data_name: str) -> Path:
    """Make the directory of a new study, with its config.

    Raises:
        ConfigError: it exists, or it cannot be made.
    """
    name = config.name or f"tune-{data_name}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    study_dir = Path(config.output_dir).expanduser() / name
    if study_dir.exists():
        go_on = f", or go on with `raytricks tune --resume {shlex.quote(str(study_dir))}`"
        raise ConfigError(f"{study_dir} exists; choose another name{go_on if is_study(study_dir) else ''}")
    try:
        (study_dir / TRIALS).mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{study_dir} cannot be made ({error.strerror}); set output_dir to a writable place"
        ) from None
    write_atomically(study_dir / CONFIG_FILE, dump_yaml(config).encode())
    return study_dir


def is_study(directory: Path) -> bool:
    """Return whether a directory is that of a study."""
    return (directory / CONFIG_FILE).is_file() and (directory / STUDY_FILE).is_file()


def open_study(study_dir: Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> ExperimentConfig:
    """Read the config of a study that is to go on.

    Args:
        overrides: dotted settings; only those that leave the trials as they are.

    Raises:
        ConfigError: it is no study, or a setting would change its trials.
    """
    if not is_study(study_dir):
        kind = "a run; go on with `raytricks train --resume`" if (study_dir / RUN_FILE).is_file() else "no study"
        raise ConfigError(f"{study_dir} is {kind} (no {STUDY_FILE}); name the directory that `raytricks tune` made")
    config = load_config(study_dir / CONFIG_FILE, overrides, of_run=True).config
    require_same_study(study_dir, config)
    return config


def require_same_study(study_dir: Path, config: ExperimentConfig) -> None:
    """Raise ConfigError for a config with which the study of a directory cannot go on."""
    before, after = flatten(load_config(study_dir / CONFIG_FILE, of_run=True).config), flatten(config)
    changed = [key for key in after if after[key] != before.get(key) and not key.startswith((*RESUMABLE, "output_dir"))]
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: cannot change when a study goes on; what can: {', '.join(RESUMABLE)}; start a new "
            "study for it"
        )


def begin(study_dir: Path, facts: dict[str, Any]) -> float:
    """Note when the study started and `facts`; returns that time, which a resumed study keeps, in unix seconds."""
    path = study_dir / STUDY_FILE
    known = json.loads(path.read_text()) if path.is_file() else {"started_at": time.time()}
    write_atomically(path, json.dumps(facts | known, indent=1).encode())
    return float(known["started_at"])


def write_best(study_dir: Path, config: ExperimentConfig, comments: list[str]) -> Path:
    """Write the winner as a config that `raytricks train` takes, its provenance in comments."""
    path = study_dir / BEST_FILE
    lines = [f"# {line}" if line else "#" for comment in comments for line in comment.splitlines() or [""]]
    write_atomically(path, ("\n".join(lines) + "\n\n" + dump_yaml(config)).encode())
    return path
