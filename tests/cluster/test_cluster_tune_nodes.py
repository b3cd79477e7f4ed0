"""A search of two-worker trials that loses a node."""

import logging
from pathlib import Path
import time

from processes import descendants
import pytest
from tiny_study import tiny_task

from raytricks.cluster.session import prepare_environment, ray_session
from raytricks.cluster.tune.driver import run_trials
from raytricks.training.records import read_records
from raytricks.tuning.trial_files import epoch_records, read_outcomes

_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.chaos,
    pytest.mark.timeout(1200),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]
_TRIALS, _EPOCHS = 4, 3


class Nodes:
    """A head without CPUs and three nodes of two each."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=2) for _ in range(3)]
        self.lost_at: float | None = None
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def lose_one_that_trains(self) -> None:
        """End a node on which workers train."""
        for node in self.nodes:
            raylet = node.all_processes["raylet"][0].process.pid
            if any("RayTrainWorker" in name for name in descendants(raylet).values()):
                self.cluster.remove_node(node, allow_graceful=False)
                self.lost_at = time.monotonic()
                return

    def close(self) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()


@pytest.fixture
def nodes():
    prepare_environment()
    running = Nodes()
    yield running
    running.close()


def test_no_trial_is_lost_or_left_waiting_when_a_node_is_lost(nodes, tmp_path, record_property):
    import ray

    task = tiny_task(
        tmp_path,
        num_trials=_TRIALS,
        num_train=640,
        workers=2,
        recipe__epochs=_EPOCHS,
        model__norm="group",
        tune__concurrent_trials=2,
        hardware__start_timeout_s=30.0,
        checkpoint__every_steps=5,
    )

    def lose_when_trained(number: int, record, status: str) -> None:
        if record is not None and nodes.lost_at is None:
            nodes.lose_one_that_trains()

    started_s = time.monotonic()
    with ray_session() as resources:
        run_trials(task, resources=resources, use_gpu=False, listener=lose_when_trained, stop_requested=lambda: 0)
        took_s = time.monotonic() - started_s
        assert nodes.lost_at is not None
        outcomes = read_outcomes(task.trials_dir, 0.0)
        assert [(o.status, o.epochs) for o in outcomes] == [("finished", _EPOCHS)] * _TRIALS, outcomes
        assert all([r["epoch"] for r in epoch_records(Path(o.run_dir))] == [1, 2, 3] for o in outcomes)
        deadline = time.monotonic() + 30  # Ray frees what ended trials held after a moment
        while ray.available_resources().get("CPU", 0) < 4 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"] == 4
    resumed = [
        note["text"]
        for o in outcomes
        for note in read_records(Path(o.run_dir) / "metrics.jsonl")
        if note["kind"] == "note"
    ]
    record_property(
        "search of two-worker trials, 1 of 3 nodes lost",
        f"{len(outcomes)} of {_TRIALS} trials finished, all CPUs free again; {took_s:.0f} s in all, "
        f"{time.monotonic() - nodes.lost_at:.0f} s of it after the loss; {resumed}",
    )
