"""A trial's directory: an ordinary run directory with `trial.json`, which says what the trial is and how far.

These files are the truth about a study. Whoever carries trials out may be killed at any moment: a
trial goes on from its newest checkpoint, and one that has ended is never trained again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
import json
from pathlib import Path
from typing import Any, Literal

from raytricks.config import ExperimentConfig
from raytricks.config.changes import change_problems
from raytricks.config.schema import Change
from raytricks.errors import CheckpointError, ConfigError
from raytricks.files import write_atomically
from raytricks.training.records import METRICS_FILE, Record, read_records
from raytricks.tuning.outcome import TrialOutcome, TrialStatus
from raytricks.tuning.space import apply_values

TRIAL_FILE = "trial.json"
ADOPTED = ".adopted"
"""Directory in a trial's: the state that it takes over, whole, while its files are being moved up."""
ENDED: tuple[TrialStatus, ...] = ("finished", "stopped", "failed")


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """A state that was taken over: that of trial `donor` after `epoch` epochs."""

    epoch: int
    donor: int


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """What trial.json holds.

    Attributes:
        number: 0 is the config as it was given.
        root_values: dotted key -> value, with which the first epochs were trained.
        changes: of these values, each after some epochs; `values` are those that hold now.
        lineage: the states taken over, the latest last.
        seed: of training.
        reason: why it failed, was stopped or not started, one line.
        epoch_times: unix time at the end of each epoch.
        train_s: seconds spent in it, training and evaluation.
    """

    number: int
    root_values: dict[str, Any]
    seed: int
    changes: tuple[Change, ...] = ()
    lineage: tuple[Adoption, ...] = ()
    status: Literal["running"] | TrialStatus = "running"
    reason: str | None = None
    epoch_times: tuple[float, ...] = ()
    train_s: float = 0.0

    @property
    def values(self) -> dict[str, Any]:
        """The values after all changes."""
        current = dict(self.root_values)
        for change in self.changes:
            current |= change.values
        return current

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to train."""
        return self.status in ENDED


def trial_directory(trials_dir: Path, number: int) -> Path:
    """Return the directory of a trial."""
    return trials_dir / f"{number:03d}"


def trial_directories(trials_dir: Path) -> Iterator[Path]:
    """Yield the directories of all trials that were begun, by number."""
    found = [path for path in trials_dir.glob("*") if path.name.isdecimal() and read_state(path) is not None]
    yield from sorted(found, key=lambda path: int(path.name))


def read_state(trial_dir: Path) -> TrialState | None:
    """Return what trial.json says; None for a trial that was never begun.

    Raises:
        CheckpointError: it is damaged.
    """
    path = current_file(trial_dir, TRIAL_FILE)
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove {trial_dir} to train the trial again") from None
    return _state_of(content, path)


def write_state(trial_dir: Path, state: TrialState) -> None:
    """Write trial.json so that a reader sees the old content or the new."""
    content = asdict(replace(state, changes=())) | {
        "values": state.values,
        "changes": [change.model_dump() for change in state.changes],
    }
    write_atomically(trial_dir / TRIAL_FILE, json.dumps(content, indent=1).encode())


def current_file(trial_dir: Path, name: str) -> Path:
    """Return where a file of a trial is: an adopted state that is not moved up yet counts."""
    adopted = trial_dir / ADOPTED / name
    return adopted if adopted.exists() else trial_dir / name


def epoch_records(trial_dir: Path) -> list[Record]:
    """Return the records of the epochs that a trial has made, one an epoch."""
    records = read_records(current_file(trial_dir, METRICS_FILE))
    return [record for record in records if record["kind"] == "epoch"]


def trial_config(base: ExperimentConfig, state: TrialState) -> ExperimentConfig:
    """Return the config of a trial: the base's with the trial's values, changes and seed, without a search.

    Raises:
        ConfigError: the values, their combination or a change of them is not allowed.
    """
    config = apply_values(base, state.root_values)
    update: dict[str, Any] = {"seed": state.seed, "changes": merged_changes(base.changes, state.changes)}
    if base.tune.scheduler == "pbt":  # a state that others take over must be of the end of an epoch
        update["checkpoint"] = base.checkpoint.model_copy(update={"every_steps": None})
    config = config.model_copy(update=update)
    if problems := change_problems(config):
        raise ConfigError(problems)
    return config


def merged_changes(first: Sequence[Change], second: Sequence[Change]) -> tuple[Change, ...]:
    """Return the changes of both, in order; at the same epoch the second's values win."""
    values: dict[int, dict[str, Any]] = {}
    for change in (*first, *second):
        values[change.epoch] = values.get(change.epoch, {}) | change.values
    return tuple(Change(epoch=epoch, values=values[epoch]) for epoch in sorted(values))


def read_outcomes(trials_dir: Path, started_at: float) -> tuple[TrialOutcome, ...]:
    """Return how each trial that was begun did, by number.

    Args:
        started_at: unix time of the study's start.

    Raises:
        CheckpointError: a trial.json is damaged.
    """
    return tuple(_outcome(trial_dir, started_at) for trial_dir in trial_directories(trials_dir))


def _outcome(trial_dir: Path, started_at: float) -> TrialOutcome:
    state = read_state(trial_dir)
    assert state is not None
    records = epoch_records(trial_dir)
    times = padded(state.epoch_times, len(records), current_file(trial_dir, METRICS_FILE))
    return TrialOutcome(
        number=state.number,
        values=state.values,
        status="unfinished" if state.status == "running" else state.status,
        reason=state.reason,
        top1=tuple(record["val_top1"] for record in records if "val_top1" in record),
        elapsed_s=tuple(max(0.0, time - started_at) for time in times),
        train_s=state.train_s,
        run_dir=str(trial_dir),
    )


def padded(epoch_times: Sequence[float], count: int, written_by: Path) -> tuple[float, ...]:
    """Return one time an epoch; a kill right after an epoch's checkpoint leaves its time out.

    Args:
        written_by: a file that was written last at about the missing time.
    """
    missing = count - len(epoch_times)
    if missing <= 0:
        return tuple(epoch_times[:count])
    latest = max([written_by.stat().st_mtime, *epoch_times])
    return (*epoch_times, *[latest] * missing)


def _state_of(content: Mapping[str, Any], path: Path) -> TrialState:
    try:
        return TrialState(
            number=content["number"],
            root_values=content["root_values"],
            seed=content["seed"],
            changes=tuple(Change(**change) for change in content["changes"]),
            lineage=tuple(Adoption(**adoption) for adoption in content["lineage"]),
            status=content["status"],
            reason=content["reason"],
            epoch_times=tuple(content["epoch_times"]),
            train_s=content["train_s"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}); remove {path.parent}") from None
