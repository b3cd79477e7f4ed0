"""Population-based training on real Ray Tune: weights are cloned, settings follow, and the result repeats."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_study import tiny_task
import torch
from watched_trials import adopted_pairs, same, watched

from raytricks.cluster.session import ray_session
from raytricks.cluster.tune.driver import run_trials
from raytricks.config import load_config
from raytricks.data.prepared import prepare_data
from raytricks.recipe.phases import config_at, make_phases
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.worker import Worker
from raytricks.tuning.outcome import TrialOutcome
from raytricks.tuning.study_task import StudyTask
from raytricks.tuning.trial_files import epoch_records, read_outcomes, read_state

_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]
PBT = {"tune__scheduler": "pbt", "tune__perturb_every_epochs": 2}


@pytest.fixture(scope="module")
def cluster():
    with ray_session() as resources:
        yield resources


def carry_out(task: StudyTask, cluster, trial_class=None) -> tuple[TrialOutcome, ...]:
    run_trials(
        task,
        resources=cluster,
        use_gpu=False,
        listener=lambda *_: None,
        stop_requested=lambda: 0,
        trial_class=trial_class,
    )
    return read_outcomes(task.trials_dir, 0.0)


@pytest.fixture(scope="module")
def population(cluster, tmp_path_factory):
    """Four one-worker trials of six epochs, compared after every second."""
    from raytricks.cluster.tune.trial import OneWorkerTrial

    folder = tmp_path_factory.mktemp("pbt")
    task = tiny_task(folder, num_trials=4, num_train=320, recipe__epochs=6, **PBT)
    return task, carry_out(task, cluster, watched(OneWorkerTrial, folder)), folder


def test_exploits_clone_the_donors_weights_bit_for_bit(population):
    _, outcomes, folder = population
    assert [(o.status, o.epochs) for o in outcomes] == [("finished", 6)] * 4
    pairs = adopted_pairs(folder)
    assert len(pairs) >= 2
    assert all(same(exported, loaded) for exported, loaded in pairs)
    exported = [torch.load(path) for path in folder.glob("exported-*.pt")]
    assert not all(same(weights, exported[0]) for weights in exported)


def test_settings_follow_the_exploits(population):
    task, outcomes, _ = population
    num_changed = 0
    for outcome in outcomes:
        config = load_config(Path(outcome.run_dir) / "config.yaml").config
        phases = make_phases(config, len(task.splits.train))
        state = read_state(Path(outcome.run_dir))
        assert state is not None and {change.epoch for change in config.changes} <= {a.epoch for a in state.lineage} | {
            2,
            4,
        }
        num_changed += len(config.changes)
        for record in epoch_records(Path(outcome.run_dir)):
            phase = next(s for s in phases if record["epoch"] <= s.end_epoch)
            assert record["lr"] == pytest.approx(phase.recipe.lr(record["step"]))
            assert record["step"] == phase.recipe.steps_before(record["epoch"])
        assert config_at(config, 6).recipe.base_lr == outcome.values["recipe.base_lr"]
    assert num_changed >= 2


def test_config_of_each_trial_repeats_it_without_a_population(population, tmp_path):
    task, outcomes, _ = population
    assert any(load_config(Path(o.run_dir) / "config.yaml").config.changes for o in outcomes)
    for outcome in outcomes:
        config = load_config(Path(outcome.run_dir) / "config.yaml").config
        run_dir = tmp_path / str(outcome.number)
        run_dir.mkdir()
        job = TrainingJob(config=config, data=prepare_data(task.splits, config.data), run_dir=run_dir)
        assert tuple(r["val_top1"] for r in run_epochs(job, Worker())) == outcome.top1
        ours, theirs = (load_file(Path(d) / "model.safetensors") for d in (run_dir, outcome.run_dir))
        assert same(ours, theirs)


def test_population_carried_out_again_trains_nothing(population, cluster):
    task, outcomes, _ = population
    assert carry_out(task, cluster) == outcomes


def test_population_goes_on_after_it_was_cut_off(cluster, tmp_path):
    """Trials stand at different epochs, as a kill leaves them."""
    task = tiny_task(tmp_path, num_trials=4, num_train=320, recipe__epochs=6, **PBT)
    first = replace(task, num_trials=2)
    carry_out(first, cluster)
    outcomes = carry_out(task, cluster)
    assert [(o.number, o.status, o.epochs) for o in outcomes] == [(n, "finished", 6) for n in range(4)]
