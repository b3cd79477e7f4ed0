"""Trials of two workers each on real Ray Tune and Ray Train."""

import logging
import os
from pathlib import Path
import time

import pytest
from tiny_study import tiny_task
from watched_trials import adopted_pairs, same, watched

from raytricks.cluster import session
from raytricks.cluster.tune.driver import run_trials, trial_slots
from raytricks.config import load_config
from raytricks.tuning.trial_files import read_outcomes

_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]


@pytest.fixture(scope="module")
def cluster():
    """Ray that believes in four CPUs: room for two trials at a time."""
    os.environ.update(session._QUIET)
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with session.ray_session() as resources:
        yield resources
    ray.shutdown()


def carry_out(task, cluster, trial_class=None):
    run_trials(
        task,
        resources=cluster,
        use_gpu=False,
        listener=lambda *_: None,
        stop_requested=lambda: 0,
        trial_class=trial_class,
    )
    return read_outcomes(task.trials_dir, 0.0)


def free_cpus() -> float:
    """Return the CPUs that nobody holds, after a moment: Ray frees what a dead process held with a delay."""
    import ray

    give_up_at = time.monotonic() + 15
    while ray.available_resources().get("CPU", 0) < 4 and time.monotonic() < give_up_at:
        time.sleep(0.2)
    return ray.available_resources().get("CPU", 0)


def test_two_worker_trials_take_over_weights_and_give_their_cpus_back(cluster, tmp_path):
    from raytricks.cluster.tune.nested import ManyWorkersTrial

    task = tiny_task(
        tmp_path,
        num_trials=2,
        points=[{"recipe.base_lr": lr, "recipe.global_batch_size": 32} for lr in (0.1, 1e-6)],  # one must lose
        num_train=320,
        recipe__epochs=6,
        workers=2,
        model__norm="group",
        tune__scheduler="pbt",
        tune__perturb_every_epochs=1,
    )
    assert trial_slots(task.base, [cluster], use_gpu=False) == 2
    outcomes = carry_out(task, cluster, watched(ManyWorkersTrial, tmp_path, num_together=2))
    assert [(o.status, o.epochs) for o in outcomes] == [("finished", 6)] * 2, outcomes
    pairs = adopted_pairs(tmp_path)
    print(f"{len(pairs)} exploits of two-worker trials")
    assert len(pairs) >= 2 and all(same(exported, loaded) for exported, loaded in pairs)
    assert all(load_config(Path(o.run_dir) / "config.yaml").config.workers == 2 for o in outcomes)
    left = {p.name for o in outcomes for p in Path(o.run_dir).glob(".*")}
    assert left <= {".lock", ".has-saved", ".launch"}, left  # of the run itself; requests and Ray's files go
    assert free_cpus() == 4


def test_failure_of_a_worker_fails_its_trial_and_an_early_stop_frees_the_cpus(cluster, tmp_path):
    lrs = (0.2, 1e30, 1e-7)
    task = tiny_task(
        tmp_path,
        num_trials=3,
        num_train=320,
        points=[{"recipe.base_lr": lr} for lr in lrs],
        recipe__epochs=3,
        workers=2,
        model__norm="group",
        tune__space={"recipe.base_lr": {"kind": "loguniform", "low": 1e-8, "high": 1.0}},
        tune__scheduler="asha",
        tune__reduction_factor=2,
        tune__grace_epochs=1,
        tune__concurrent_trials=1,
    )
    outcomes = carry_out(task, cluster)
    assert [o.status for o in outcomes] in (["finished", "failed", "stopped"], ["finished", "failed", "finished"])
    assert "lower recipe.base_lr" in (outcomes[1].reason or "")
    assert free_cpus() == 4
