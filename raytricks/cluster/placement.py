"""Which workers fit on the nodes of a cluster."""

from collections.abc import Mapping, Sequence

from raytricks.config import ExperimentConfig
from raytricks.errors import ClusterError

Node = Mapping[str, float]
"""The resources of a node, such as {"CPU": 16.0, "GPU": 8.0}."""


def alive_nodes() -> list[Node]:
    """Return the resources of each node of the cluster that Ray is connected to."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room_for_workers(nodes: Sequence[Node], *, cpus: int, use_gpu: bool) -> int:
    """Return how many workers of `cpus` CPUs, and a GPU each, fit on the nodes when nothing else runs there."""
    return sum(_room_on(node, cpus, use_gpu) for node in nodes)


def cpus_per_worker(nodes: Sequence[Node], num_workers: int, *, use_gpu: bool) -> int:
    """Return the most CPUs that each of so many workers, or of those that fit at all, can have; at least one."""
    num_workers = min(num_workers, room_for_workers(nodes, cpus=1, use_gpu=use_gpu))
    most = int(max((node.get("CPU", 1) for node in nodes), default=1))
    for cpus in range(most, 1, -1):
        if room_for_workers(nodes, cpus=cpus, use_gpu=use_gpu) >= num_workers:
            return cpus
    return 1


def require_room(nodes: Sequence[Node], *, num_workers: int, cpus_per_worker: int, use_gpu: bool) -> None:
    """Refuse at once what the cluster can never give; Ray would wait for it for ever.

    Raises:
        ClusterError: fewer CPUs or GPUs than the workers need.
    """
    room = room_for_workers(nodes, cpus=cpus_per_worker, use_gpu=False)
    if num_workers > room:
        cpus = sum(node.get("CPU", 0) for node in nodes)
        largest = max((node.get("CPU", 0) for node in nodes), default=0)
        on_nodes = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        remedy = f"set workers={room}" if room else f"set hardware.cpus_per_worker={max(1, int(largest))}"
        raise ClusterError(
            f"workers={num_workers} with {cpus_per_worker} CPU each need {num_workers * cpus_per_worker} CPUs, the "
            f"cluster has {cpus:g}{on_nodes}; {remedy}, or workers=[1, {num_workers}] for what there is"
        )
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if use_gpu and num_workers > gpus:
        raise ClusterError(
            f"workers={num_workers} on GPUs need {num_workers} GPUs, the cluster has {gpus}; "
            + (f"set workers={gpus}" if gpus else "set hardware.device=cpu")
        )
    if use_gpu and num_workers > (room := room_for_workers(nodes, cpus=cpus_per_worker, use_gpu=True)):
        raise ClusterError(
            f"workers={num_workers} with {cpus_per_worker} CPU and a GPU each: the nodes have room for {room}; set "
            f"workers={room} or a smaller hardware.cpus_per_worker"
        )


def require_chosen_device(nodes: Sequence[Node], device: str, *, use_gpu: bool) -> None:
    """Refuse to train on the CPUs of a cluster of GPUs because the driver's machine has none.

    Args:
        device: hardware.device.

    Raises:
        ClusterError: it is auto, and only the driver's machine lacks GPUs.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if device == "auto" and not use_gpu and gpus:
        raise ClusterError(
            f"hardware.device is auto, the cluster has {gpus} GPUs and this machine none that torch can use; set "
            "hardware.device=cuda or hardware.device=cpu"
        )


def _room_on(node: Node, cpus: int, use_gpu: bool) -> int:
    room = int(node.get("CPU", 0) // cpus)
    return min(room, int(node.get("GPU", 0))) if use_gpu else room


def cpus_per_trial_worker(config: ExperimentConfig) -> int:
    """Return the CPUs of each worker of a trial."""
    return config.hardware.cpus_per_worker or 1
