"""Whether the nodes of a cluster see the directory that the driver writes to."""

from pathlib import Path
import time
import uuid

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytricks.cluster.checks.probe import read_mark, write_mark
from raytricks.errors import ClusterError

_FILE_WAIT_S = 10.0  # an NFS client may take seconds to show what another machine wrote
_ANSWER_WAIT_S = 60.0


def require_shared(directory: Path) -> None:
    """Refuse a directory that a node which may get workers does not see.

    A node that is lost or does not answer meanwhile is not judged: its workers look for themselves.

    Raises:
        ClusterError: naming the nodes.
    """
    nodes = {
        node["NodeID"]: node["NodeManagerHostname"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0)
    }
    here = ray.get_runtime_context().get_node_id()
    if not nodes.keys() - {here}:  # else this one too: it may be in a container that the driver is not in
        return
    mark = uuid.uuid4().hex
    directory = directory.resolve()  # other processes are in other directories
    path = directory / f".shared-{mark[:8]}"
    write_mark(path, mark)
    look = ray.remote(num_cpus=0, max_retries=0)(_is_visible)
    try:
        asked = {
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(
                str(path), mark
            ): host
            for node_id, host in nodes.items()
        }
        deadline_s, waiting, blind = time.monotonic() + _ANSWER_WAIT_S, list(asked), []
        while waiting and time.monotonic() < deadline_s:
            answered, waiting = ray.wait(waiting, timeout=1.0)
            blind += [asked[one] for one in answered if not _answer(one)]
        for one in waiting:
            ray.cancel(one)
    finally:
        path.unlink(missing_ok=True)
    if blind:
        raise ClusterError(
            f"{directory} is not seen on {', '.join(sorted(blind)[:5])} ({len(blind)} of {len(nodes)} nodes); set "
            "output_dir to storage that all nodes share"
        )


def _is_visible(path: str, mark: str) -> bool:
    return read_mark(Path(path), mark, _FILE_WAIT_S)


def _answer(reference: "ray.ObjectRef") -> bool:
    try:
        return ray.get(reference)
    except RayError:  # the node has gone, or lacks raytricks
        return True
