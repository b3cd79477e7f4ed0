"""Nodes that are lost, drained and added: the run goes on with the workers that there is room for."""

from collections.abc import Iterator
from contextlib import suppress
import logging
from pathlib import Path
from statistics import median
import time

from faults import Faults, losses, settings
import numpy as np
import pytest

import raytricks
from raytricks.cluster.session import prepare_environment

_IGNORED = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    *(pytest.mark.filterwarnings(f"ignore::{category}") for category in _IGNORED),
]
_NOTICE_S = 30
EPOCHS = 250  # of 22 steps: some minutes, so that the third new node comes before the end on a fast machine too


class ThreeNodes:
    """A head without CPUs, for the driver, and nodes of one CPU each."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def lose(self) -> None:
        """End a node without notice."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def drain(self) -> None:
        """Give notice that a node will be gone."""
        from ray._raylet import GcsClient

        deadline_ms = int((time.time() + _NOTICE_S) * 1000)
        reason = 2  # preemption
        accepted, why = GcsClient(address=self.cluster.address).drain_node(
            self.nodes[-1].node_id, reason, "spot instance", deadline_ms
        )
        assert accepted, why

    def replace(self) -> None:
        """Add a node."""
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def replace_drained(self) -> None:
        """End the drained node and add another."""
        self.lose()
        self.replace()

    def close(self) -> None:
        import ray

        ray.shutdown()
        with suppress(Exception):
            self.cluster.shutdown()


@pytest.fixture
def nodes() -> Iterator[ThreeNodes]:
    prepare_environment()
    running = ThreeNodes()
    try:
        yield running
    finally:
        running.close()


def elastic(folder: Path, name: str, **changes) -> dict:
    return settings(
        folder,
        name=name,
        workers=(1, 2),
        hardware__resize_every_s=2.0,
        hardware__start_timeout_s=20.0,
        hardware__max_restarts=0,
        **changes,
    )


def test_drained_node_costs_no_step_and_no_restart_and_its_successor_is_used(nodes, tmp_path):
    """2 workers, then 1 after the notice, then 2 on a new node: one loss curve."""
    faults = Faults([(8, nodes.drain), (16, nodes.replace_drained)])
    overrides = elastic(tmp_path, "drained", recipe__epochs=40, tricks__decay__kind="constant")
    run = raytricks.train(None, overrides, reporter=faults)  # type: ignore[arg-type]
    worlds = [note.rpartition(", ")[2] for note in faults.notes]
    assert worlds == ["on 1 workers instead of 2", "on 2 workers instead of 1"], faults.notes
    assert faults.again == 0 and not any("made again" in note for note in faults.notes)
    short = settings(tmp_path, name="alone", workers=0, recipe__epochs=3, tricks__decay__kind="constant")
    alone = raytricks.train(None, short)
    np.testing.assert_allclose(losses(run.run_dir)[:60], losses(alone.run_dir)[:60], rtol=1e-4)
    assert not (run.run_dir / ".ray").exists()


def spread(seconds: list[float]) -> str:
    return f"{median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


@pytest.mark.chaos
def test_lost_nodes_cost_the_steps_since_the_checkpoint(nodes, tmp_path, record_property):
    """Three times: a node is lost, the run goes on with one worker; another is added, it goes on with two."""
    turns = 3
    faults = Faults([(8, nodes.lose), (9, nodes.replace)] * turns)
    overrides = elastic(tmp_path, "lost", recipe__epochs=EPOCHS) | {"hardware.max_restarts": turns}
    run = raytricks.train(None, overrides, reporter=faults)  # type: ignore[arg-type]
    lost, added = faults.seconds[::2], faults.seconds[1::2]
    assert (len(lost), len(added)) == (turns, turns) and run.last["epoch"] == EPOCHS
    worlds = [note.rpartition(", ")[2] for note in faults.notes]
    assert worlds == ["on 1 workers instead of 2", "on 2 workers instead of 1"] * turns, faults.notes
    assert faults.again <= 5 * turns  # checkpoint.every_steps is 5; growing costs none
    record_property(
        "node loss", f"{turns} of {turns} recovered on 1 worker; {faults.again} steps made again; {spread(lost)}"
    )
    record_property("elastic resize, a node is added", f"{turns} of {turns}; 0 steps made again; {spread(added)}")


@pytest.mark.chaos
def test_drained_nodes_cost_no_steps(nodes, tmp_path, record_property):
    """Three times: notice of 30 s, the run goes on with one worker; the node is replaced, it goes on with two."""
    turns = 3
    faults = Faults([(8, nodes.drain), (9, nodes.replace_drained)] * turns)
    run = raytricks.train(None, elastic(tmp_path, "drained", recipe__epochs=EPOCHS), reporter=faults)  # type: ignore[arg-type]
    drained, replaced = faults.seconds[::2], faults.seconds[1::2]
    assert (len(drained), len(replaced)) == (turns, turns) and run.last["epoch"] == EPOCHS
    assert faults.again == 0  # and hardware.max_restarts is 0
    record_property(
        "node drain, 30 s of notice",
        f"{turns} of {turns} saved and went on; 0 steps made again, 0 of max_failures used; {spread(drained)}",
    )
    record_property("elastic resize, the drained node is replaced", f"{turns} of {turns}; 0 steps; {spread(replaced)}")
