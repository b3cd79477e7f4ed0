"""Population-based training: a trial takes over the weights and the history of a better one, and goes on elsewhere.

    explore        settings close to the better trial's
    export_state   copies a trial's newest checkpoint, its records and its trial.json
    adopt_state    makes another trial's directory continue from such a copy, with other values

The adopted state is prepared in a directory of its own within the trial's, renamed to `.adopted`
when it is whole, and moved up from there. A kill before the rename leaves the old state, one after
it the new state: who opens the trial next moves up the rest.
"""

from collections.abc import Mapping
from dataclasses import replace
import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from raytricks.config import ExperimentConfig
from raytricks.config.changes import changeable_keys, changed_config
from raytricks.config.schema import Change
from raytricks.config.search_space import AnyKind, Choice, Grid
from raytricks.errors import CheckpointError, ConfigError
from raytricks.files import sync_directory
from raytricks.training.checkpoint import newest_checkpoint
from raytricks.training.records import METRICS_FILE, read_records
from raytricks.training.run_directory import CONFIG_FILE, write_config
from raytricks.training.run_files import CHECKPOINTS
from raytricks.tuning.space import unit_to_value, value_to_unit
from raytricks.tuning.trial_files import (
    ADOPTED,
    TRIAL_FILE,
    Adoption,
    TrialState,
    merged_changes,
    read_state,
    trial_config,
    write_state,
)

_STEP = 0.2
_RESAMPLED = 0.25
_MOST_DRAWS = 20


def explore(
    base: ExperimentConfig, config: ExperimentConfig, values: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    """Return new values of the searched keys, each a step from the old one or drawn afresh.

    A step is a fifth of the axis of the key's distribution, up or down, or the next listed value.
    Every fourth value is drawn afresh. Keys that may not change in the course of a run keep theirs.

    Args:
        base: of the study; its tune.space has the distributions.
        config: that holds in the donor now; the new values are valid in its place.
        values: the donor's.
    """
    free = set(changeable_keys(type(config)))
    space = {key: distribution for key, distribution in base.tune.space.items() if key in free}
    for _ in range(_MOST_DRAWS):
        drawn = {key: _moved(distribution, values[key], rng) for key, distribution in space.items()}
        try:
            changed_config(config, drawn)
        except ConfigError:  # of values that exclude each other
            continue
        return dict(values) | drawn
    return dict(values)


def _moved(distribution: AnyKind, value: Any, rng: np.random.Generator) -> Any:
    is_resampled, resampled = rng.random() < _RESAMPLED, rng.random()
    direction = 1 if rng.random() < 0.5 else -1
    try:
        unit = value_to_unit(distribution, tuple(value) if isinstance(value, list) else value)
    except ValueError:  # the default config may lie outside what is searched
        is_resampled, unit = True, 0.0
    if is_resampled:
        return unit_to_value(distribution, resampled)
    step = max(_STEP, 1 / len(distribution.values)) if isinstance(distribution, Choice | Grid) else _STEP
    return unit_to_value(distribution, min(1.0, max(0.0, unit + direction * step)))


_PREPARED = ".tmp-adopted"
_FILES = (CONFIG_FILE, METRICS_FILE, TRIAL_FILE)


def export_state(trial_dir: Path, target: Path) -> None:
    """Copy into `target` what another trial needs to continue from the end of this one's last epoch.

    Raises:
        CheckpointError: no valid checkpoint of the end of an epoch.
    """
    state = read_state(trial_dir)
    found = newest_checkpoint(trial_dir / CHECKPOINTS)
    assert state is not None
    records = [] if found is None else [r for r in read_records(trial_dir / METRICS_FILE) if r["step"] <= found.step]
    epochs = [record for record in records if record["kind"] == "epoch"]
    if found is None or not epochs or epochs[-1]["step"] != found.step:
        raise CheckpointError(f"{trial_dir}: no checkpoint of the end of an epoch to hand to another trial")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(found.path, target / CHECKPOINTS / found.path.name)
    (target / METRICS_FILE).write_text("".join(json.dumps(record) + "\n" for record in records))
    write_state(target, replace(state, epoch_times=state.epoch_times[: len(epochs)]))


def adopt_state(trial_dir: Path, source: Path, values: Mapping[str, Any], base: ExperimentConfig) -> bool:
    """Make a trial continue from another's exported state, with these values from there on.

    Does nothing for its own state with its own values, nor for what it has adopted last: who carries
    trials out may ask again after a failure.

    Args:
        trial_dir: of a begun trial that nothing trains at the moment.
        source: what `export_state` wrote.
        values: dotted key -> value, of all searched keys.
        base: the config of the study.

    Returns:
        Whether the state was taken over.

    Raises:
        CheckpointError: either directory is damaged.
        ConfigError: the values cannot follow those of the source in the course of a run.
    """
    finish_adoption(trial_dir)
    own, donor = read_state(trial_dir), read_state(source)
    if own is None or donor is None:
        raise CheckpointError(f"{trial_dir} or {source} holds no {TRIAL_FILE}")
    epoch = sum(record["kind"] == "epoch" for record in read_records(source / METRICS_FILE))
    adoption = Adoption(epoch=epoch, donor=donor.number)
    has_values = own.values == _plain(values)
    if has_values and (own.number == donor.number or own.lineage[-1:] == (adoption,)):
        return False
    _prepare(trial_dir, source, _adopted(own, donor, adoption, values), base)
    finish_adoption(trial_dir)
    return True


def finish_adoption(trial_dir: Path) -> None:
    """Move up an adopted state that a kill left halfway, if there is one."""
    adopted = trial_dir / ADOPTED
    shutil.rmtree(trial_dir / _PREPARED, ignore_errors=True)
    if not adopted.is_dir():
        return
    for path in trial_dir.glob("model*.safetensors"):
        path.unlink()
    if (adopted / CHECKPOINTS).is_dir():
        shutil.rmtree(trial_dir / CHECKPOINTS, ignore_errors=True)
        (adopted / CHECKPOINTS).rename(trial_dir / CHECKPOINTS)
    for name in _FILES:
        if (adopted / name).exists():
            (adopted / name).replace(trial_dir / name)
    sync_directory(trial_dir)
    adopted.rmdir()


def _adopted(own: TrialState, donor: TrialState, adoption: Adoption, values: Mapping[str, Any]) -> TrialState:
    """Return the state of a trial after it has taken over the donor's."""
    before = donor.values
    differing = {key: value for key, value in _plain(values).items() if before.get(key) != value}
    change = (Change(epoch=adoption.epoch, values=differing),) if differing else ()
    return replace(
        donor,
        number=own.number,
        changes=merged_changes(donor.changes, change),
        lineage=(*own.lineage, adoption),
        status="running",
        reason=None,
        train_s=own.train_s,
    )


def _prepare(trial_dir: Path, source: Path, state: TrialState, base: ExperimentConfig) -> None:
    prepared = trial_dir / _PREPARED
    config = trial_config(base, state)
    shutil.copytree(source / CHECKPOINTS, prepared / CHECKPOINTS)
    shutil.copy(source / METRICS_FILE, prepared / METRICS_FILE)
    write_config(prepared, config)
    write_state(prepared, state)
    sync_directory(prepared)
    prepared.rename(trial_dir / ADOPTED)
    sync_directory(trial_dir)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as a JSON file gives them back."""
    return json.loads(json.dumps(dict(values)))
