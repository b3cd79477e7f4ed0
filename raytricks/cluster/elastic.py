"""Workers that come and go: nodes that are taken away, saving before a change of their number, back to all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import threading
import time
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller.state import ResizingState

from raytricks.cluster.placement import alive_nodes, room_for_workers
from raytricks.cluster.requests import Requests

_SAVE_WAIT_S = 60
_RAY_KNOWS_AFTER_S = 22
"""Ray Train counts nodes every 20 s (Ray 2.60); begun again before, it would take the old number of workers."""


def preempted_nodes() -> Mapping[str, Sequence[int]]:
    """Return the ids of the nodes that are being drained and the ranks of the workers on them; {} if there are none.

    What Ray Train has told this worker: `ray.train.get_preemption_info()` answers the same, but asks
    an actor and waits for all workers in each call (Ray 2.60), which no training step can afford.
    """
    noted: Any = getattr(get_train_context(), "preemption_context", None)
    info = getattr(noted, "preemption_info", None)
    return {} if info is None else info.preempted_node_to_ranks


class SaveBeforeResize(ControllerCallback):
    """Has the workers save and leave before Ray Train ends them for another number of workers.

    Ray Train 2.60 ends the group without a word, and the steps since the newest checkpoint are made
    again. It calls this in the controller.
    """

    def __init__(self, run_dir: Path) -> None:
        self._requests = Requests(run_dir)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Wait until the state is saved; workers that do not answer are ended all the same."""
        if isinstance(current_state, ResizingState):
            self._requests.ask_to_leave()
            self._requests.await_leave(_SAVE_WAIT_S)


class ScaleUp:
    """While entered, looks now and then whether more workers would fit by now; if so, asks the workers to leave.

    They save, and are begun again without a limit. Nodes that are still being drained do not count: Ray
    lists them as alive until they are gone.

    Args:
        num_workers: that train meanwhile.
        draining: ids of the nodes that are to go.
        every_s: seconds between two looks.
    """

    def __init__(
        self, requests: Requests, num_workers: int, draining: Sequence[str], *, cpus: int, use_gpu: bool, every_s: float
    ) -> None:
        self._requests, self._num_workers, self._draining = requests, num_workers, set(draining)
        self._cpus, self._use_gpu, self._every_s = cpus, use_gpu, every_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="raytricks-scale-up", daemon=True)

    def __enter__(self) -> "ScaleUp":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        room_since_s: float | None = None
        while not self._is_over.wait(self._every_s):
            if not self._has_room():
                room_since_s = None
                continue
            room_since_s = room_since_s or time.monotonic()
            if time.monotonic() - room_since_s >= _RAY_KNOWS_AFTER_S:
                self._requests.ask_to_leave()
                return

    def _has_room(self) -> bool:
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        room = room_for_workers(alive_nodes(), cpus=self._cpus, use_gpu=self._use_gpu)
        return not alive & self._draining and room > self._num_workers
