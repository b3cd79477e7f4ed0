"""trial.json, and states that a trial takes over from another."""

from dataclasses import replace
import json
import os
from pathlib import Path
import shutil

from conftest import newest_weights
import pytest
import torch

from raytricks.config import load_config
from raytricks.config.schema import Change
from raytricks.errors import CheckpointError, ConfigError
from raytricks.training.records import read_records
from raytricks.tuning import pbt
from raytricks.tuning.pbt import adopt_state, export_state, finish_adoption
from raytricks.tuning.trial_files import (
    Adoption,
    TrialState,
    epoch_records,
    merged_changes,
    read_outcomes,
    read_state,
    trial_directory,
    write_state,
)

HALF = {"recipe.base_lr": 0.05, "recipe.global_batch_size": 16}


def advance(run, epochs: int) -> None:
    iterator = run.epochs()
    for _ in range(epochs):
        next(iterator)
    run.close()


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def pair(make_task, open_trial, tmp_path):
    """A donor after 2 epochs with lr 0.1, exported, and a recipient after 1 with lr 0.05."""
    task = make_task(tune__scheduler="pbt")
    donor, recipient = open_trial(task, 0), open_trial(task, 1)
    advance(donor, 2)
    advance(recipient, 1)
    export_state(donor.trial_dir, tmp_path / "exported")
    return task, donor.trial_dir, recipient.trial_dir, tmp_path / "exported"


def test_state_survives_the_file(tmp_path):
    state = TrialState(
        number=3,
        root_values={"a.b": 1, "c": [0.1, 0.2], "d": None},
        seed=5,
        changes=(Change(epoch=2, values={"a.b": 2}), Change(epoch=4, values={"d": "x"})),
        lineage=(Adoption(epoch=2, donor=1),),
        status="stopped",
        reason="why",
        epoch_times=(1.5, 2.5),
        train_s=0.25,
    )
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert state.values == {"a.b": 2, "c": [0.1, 0.2], "d": "x"}
    assert json.loads((tmp_path / "trial.json").read_text())["values"] == state.values


@pytest.mark.parametrize("content", ["", "{", "{}", '{"number": 1, "changes": [{"epoch": 0, "values": {}}]}', "[]"])
def test_damaged_state_is_refused(tmp_path, content):
    (tmp_path / "trial.json").write_text(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_state(tmp_path)


def test_outcomes_count_from_the_start_and_come_by_number(tmp_path):
    for number in (10, 2, 1):
        directory = trial_directory(tmp_path, number)
        directory.mkdir()
        state = TrialState(number=number, root_values={"x": number}, seed=0, epoch_times=(107.0, 109.0))
        write_state(directory, state)
        lines = [{"kind": "epoch", "step": s, "epoch": s, "val_top1": s / 10} for s in (1, 2)]
        lines.insert(1, {"kind": "step", "step": 2, "epoch": 2})
        (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "005").mkdir()  # never begun
    (tmp_path / "notes").mkdir()
    outcomes = read_outcomes(tmp_path, 100.0)
    assert [outcome.number for outcome in outcomes] == [1, 2, 10]
    assert outcomes[0].top1 == (0.1, 0.2) and outcomes[0].elapsed_s == (7.0, 9.0)
    assert outcomes[0].status == "unfinished" and outcomes[0].score is None


def test_changes_of_one_epoch_are_merged():
    first = (Change(epoch=2, values={"a": 1, "b": 1}), Change(epoch=5, values={"a": 5}))
    second = (Change(epoch=1, values={"c": 0}), Change(epoch=2, values={"b": 2}))
    assert merged_changes(first, second) == (
        Change(epoch=1, values={"c": 0}),
        Change(epoch=2, values={"a": 1, "b": 2}),
        Change(epoch=5, values={"a": 5}),
    )


def test_adopted_state_is_the_donors_bit_for_bit(pair):
    task, donor, recipient, exported = pair
    before = newest_weights(recipient)
    assert adopt_state(recipient, exported, HALF, task.base)
    assert same(newest_weights(recipient), newest_weights(donor)) and not same(newest_weights(recipient), before)
    assert len(list((recipient / "checkpoints").iterdir())) == 1
    assert read_records(recipient / "metrics.jsonl") == read_records(donor / "metrics.jsonl")
    ours, theirs = read_state(recipient), read_state(donor)
    assert ours is not None and theirs is not None
    assert ours.root_values == theirs.root_values and ours.number == 1
    assert ours.values == HALF and ours.lineage == (Adoption(epoch=2, donor=0),)
    assert ours.epoch_times == theirs.epoch_times and ours.train_s < theirs.train_s
    config = load_config(recipient / "config.yaml").config
    assert config.recipe.base_lr == 0.1 and config.changes == (Change(epoch=2, values=HALF),)


def test_only_what_differs_is_a_change(pair):
    task, _, recipient, exported = pair
    adopt_state(recipient, exported, HALF | {"recipe.global_batch_size": 32}, task.base)
    assert load_config(recipient / "config.yaml").config.changes == (Change(epoch=2, values={"recipe.base_lr": 0.05}),)


def test_adopted_trial_trains_on_with_its_new_values_and_its_config_repeats_it(pair, open_trial, tmp_path):
    task, _, recipient, exported = pair
    adopt_state(recipient, exported, HALF, task.base)
    run = open_trial(task, 1)
    records = list(run.epochs())
    steps = [record["step"] for record in records]
    per_epoch = len(task.splits.train) // 32
    assert steps[:2] == [per_epoch, 2 * per_epoch] and steps[3] - steps[2] == len(task.splits.train) // 16
    again = open_trial(replace(task, trials_dir=tmp_path / "repeated"), 0)
    state = replace(again.state, root_values=run.state.root_values, changes=run.state.changes)
    again.state = state
    assert [r["val_top1"] for r in again.epochs()] == [r["val_top1"] for r in records]
    assert same(newest_weights(again.trial_dir), newest_weights(recipient))
    assert load_config(again.trial_dir / "config.yaml").config == load_config(recipient / "config.yaml").config


def test_donor_that_trained_on_does_not_change_what_it_exported(pair, open_trial):
    task, donor, recipient, exported = pair
    expected = newest_weights(donor)
    advance(open_trial(task, 0), 3)
    adopt_state(recipient, exported, HALF, task.base)
    assert same(newest_weights(recipient), expected) and not same(newest_weights(donor), expected)
    assert len(epoch_records(recipient)) == 2


def test_adopting_twice_or_its_own_state_does_nothing(pair, open_trial):
    task, donor, recipient, exported = pair
    own_values = read_state(donor).values  # type: ignore[union-attr]
    advance(open_trial(task, 0), 3)
    assert not adopt_state(donor, exported, own_values, task.base)
    assert len(epoch_records(donor)) == 3
    assert adopt_state(recipient, exported, HALF, task.base)
    advance(open_trial(task, 1), 3)
    assert not adopt_state(recipient, exported, HALF, task.base)  # asked again after a failure
    assert len(epoch_records(recipient)) == 3


def test_adopted_history_is_handed_on(pair, open_trial, tmp_path):
    task, donor, recipient, exported = pair
    adopt_state(recipient, exported, HALF, task.base)
    advance(open_trial(task, 1), 3)
    export_state(recipient, tmp_path / "second")
    own = read_state(donor).values  # type: ignore[union-attr]
    assert adopt_state(donor, tmp_path / "second", own | {"recipe.base_lr": 0.4}, task.base)
    state = read_state(donor)
    assert state is not None and state.lineage == (Adoption(epoch=3, donor=1),)
    assert state.changes == (
        Change(epoch=2, values=HALF),
        Change(epoch=3, values={"recipe.base_lr": 0.4, "recipe.global_batch_size": 32}),
    )


def test_values_that_may_not_change_are_refused_and_leave_the_trial_as_it_was(pair):
    task, _, recipient, exported = pair
    before = newest_weights(recipient)
    with pytest.raises(ConfigError, match="cannot change in the course"):
        adopt_state(recipient, exported, HALF | {"model.width": 16}, task.base)
    assert same(newest_weights(recipient), before) and read_state(recipient).lineage == ()  # type: ignore[union-attr]


def test_export_needs_the_end_of_an_epoch(pair, tmp_path):
    _, donor, _, _ = pair
    newest = sorted((donor / "checkpoints").iterdir())[-1]
    records = [r for r in read_records(donor / "metrics.jsonl") if r["epoch"] < 2]
    (donor / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    with pytest.raises(CheckpointError, match="end of an epoch"):
        export_state(donor, tmp_path / "other")
    shutil.rmtree(newest.parent)
    with pytest.raises(CheckpointError, match="end of an epoch"):
        export_state(donor, tmp_path / "other")


class Killed(BaseException):
    """Stands for the end of the process."""


# every rename, replacement and removal of directories while a state is taken over
@pytest.mark.parametrize("kill_at", range(8))
def test_kill_during_an_adoption_leaves_the_old_state_or_the_new(pair, monkeypatch, kill_at):
    task, donor, recipient, exported = pair
    old, new = newest_weights(recipient), newest_weights(donor)
    calls = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > kill_at:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", counted(os.rename))
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "rmdir", counted(os.rmdir))
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(Path, "rmdir", counted(Path.rmdir))
        patch.setattr(pbt.shutil, "copytree", counted(shutil.copytree))
        with pytest.raises(Killed):
            adopt_state(recipient, exported, HALF, task.base)
    is_new = (recipient / pbt.ADOPTED).exists()
    assert len(epoch_records(recipient)) == (2 if is_new else 1)
    assert len(read_state(recipient).lineage) == is_new  # type: ignore[union-attr]
    finish_adoption(recipient)
    assert same(newest_weights(recipient), new if is_new else old)
    assert len(epoch_records(recipient)) == (2 if is_new else 1)
    changes = load_config(recipient / "config.yaml").config.changes
    assert changes == ((Change(epoch=2, values=HALF),) if is_new else ())
    assert not (recipient / pbt.ADOPTED).exists() and not list(recipient.glob(".tmp*"))
