"""The trackers that a config switches on, in the run: MLflow, Weights & Biases, and a user's own.

They are given what metrics.jsonl is given. The first worker's RecordWriter feeds them, so a run in one process, on Ray
or in a study is tracked alike.
"""

from importlib.util import find_spec
import os
from pathlib import Path
import re

from raytricks.config import ExperimentConfig
from raytricks.errors import ConfigError
from raytricks.recipe.chain import slot_calls, trackers_of
from raytricks.trackers.tracked_run import Tracker

_SECRET_NAMES = re.compile(r"KEY|TOKEN|PASSWORD|PASSWD|SECRET", re.IGNORECASE)
_SHORTEST_SECRET = 4  # characters; a shorter value would be found in any message


def require_trackers(config: ExperimentConfig) -> None:
    """Check that what the config switches on is installed; imports none of it.

    Raises:
        ConfigError: a package is missing.
    """
    rows = trackers_of(config)
    problems = [
        f"{row.place}: {row.extra} is not installed; pip install 'raytricks[{row.extra}]'"
        for row in rows
        if row.extra and not _is_installed(row.extra)
    ]
    problems += [line for call in slot_calls(config, rows, "problems") for line in call()]
    if problems:
        raise ConfigError(problems)


def open_trackers(run_dir: Path, config: ExperimentConfig) -> tuple[list[Tracker], list[str]]:
    """Begin or continue the run in every tracker that is switched on.

    Returns:
        The trackers, and a line for each that cannot be used: none of them stops a run.
    """
    trackers, problems = [], []
    for call in slot_calls(config, trackers_of(config), "track"):
        try:
            trackers.append(call(run_dir=run_dir, config=config))
        except Exception as error:  # whatever a library raises
            problems.append(describe_failure(call.part.name, error))
    return trackers, problems


def describe_failure(name: str, error: Exception) -> str:
    """Return one line for what a tracker raised, without the keys that the environment holds."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    for variable, secret in os.environ.items():
        if _SECRET_NAMES.search(variable) and len(secret) >= _SHORTEST_SECRET:
            reason = reason.replace(secret, "***")
    return f"logging.{name}: {reason[:300]}; the run goes on and metrics.jsonl has everything"


def with_absolute_places(config: ExperimentConfig) -> ExperimentConfig:
    """Return a config whose trackers mean the same places in any directory."""
    calls = slot_calls(config, trackers_of(config), "absolute")
    return config.model_copy(
        update={"logging": config.logging.model_copy(update={call.part.name: call() for call in calls})}
    )


def _is_installed(package: str) -> bool:
    """Say whether a package is there; a mere folder of that name, such as wandb makes, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
