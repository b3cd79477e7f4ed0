"""Back to the full number of workers after some had to leave a node that was taken away."""

from collections.abc import Sequence
import threading
import time

import ray

from raytricks.cluster.placement import alive_nodes, room_for_workers
from raytricks.cluster.requests import Requests

_RAY_KNOWS_AFTER_S = 22
"""Ray Train counts nodes every 20 s (Ray 2.60); begun again before, it would take the old number of workers."""


class Regrowth:
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
        self._thread = threading.Thread(target=self._watch, name="raytricks-regrowth", daemon=True)

    def __enter__(self) -> "Regrowth":
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
