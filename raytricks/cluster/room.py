"""Wait until a cluster has room for the workers: it may be busy, or its nodes may be on their way."""

from collections.abc import Callable
import time

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from raytricks.cluster.checks.cluster import cluster_address
from raytricks.cluster.placement import alive_nodes, cpus_per_worker, require_room
from raytricks.errors import ClusterError

_LOOK_S = 1.0  # signals are heard that often
_FIRST_LINE_S, _LINE_INTERVAL_S = 3.0, 30.0


def await_room(
    *,
    num_workers: int,
    most_workers: int,
    cpus: int | None,
    use_gpu: bool,
    wait_s: float,
    say: Callable[[str], None],
) -> int:
    """Return the CPUs of each worker, once the fewest workers find room at the same time.

    What is asked for is seen by an autoscaler, so nodes may come for it.

    Args:
        num_workers: the fewest.
        cpus: of each worker; None: the most that each of `most_workers` can have.
        wait_s: seconds until the wait ends in an error.
        say: given a line now and then.

    Raises:
        ClusterError: no room in time; at once where no node can come, on a Ray of this machine.
    """
    deadline_s = time.monotonic() + wait_s

    def wait_for(cpus: int) -> int:
        if cluster_address() is None:
            require_room(alive_nodes(), num_workers=num_workers, cpus_per_worker=cpus, use_gpu=use_gpu)
        bundle = {"CPU": float(cpus)} | ({"GPU": 1.0} if use_gpu else {})
        group = placement_group([bundle] * num_workers)
        line_s = time.monotonic() + _FIRST_LINE_S
        try:
            while not group.wait(_LOOK_S):
                now_s = time.monotonic()
                wanted = f"workers={num_workers} with {cpus} CPU{' and a GPU' if use_gpu else ''} each"
                if now_s >= deadline_s:
                    require_room(alive_nodes(), num_workers=num_workers, cpus_per_worker=cpus, use_gpu=use_gpu)
                    raise ClusterError(
                        f"{wanted} found no room within hardware.wait_s={wait_s:g} seconds: {_free(use_gpu)}; wait for "
                        "other runs to end, or set fewer workers or a larger hardware.wait_s"
                    )
                if now_s >= line_s:
                    line_s = now_s + _LINE_INTERVAL_S
                    say(f"waiting   for room: {wanted}; {_free(use_gpu)}; {deadline_s - now_s:.0f} s left")
        finally:
            remove_placement_group(group)
        return cpus

    if cpus is not None:
        return wait_for(cpus)
    wait_for(1)
    return wait_for(cpus_per_worker(alive_nodes(), most_workers, use_gpu=use_gpu))


def _free(use_gpu: bool) -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    names = ("CPU", "GPU") if use_gpu else ("CPU",)
    return ", ".join(f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s are free" for name in names)
