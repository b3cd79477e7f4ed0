"""Nodes that are about to be taken away, as a worker learns it from Ray Train."""

from collections.abc import Mapping, Sequence
from typing import Any


def preempted_nodes() -> Mapping[str, Sequence[int]]:
    """Return the ids of the nodes that are being drained and the ranks of the workers on them; {} if there are none.

    What Ray Train has told this worker: `ray.train.get_preemption_info()` answers the same, but asks
    an actor and waits for all workers in each call (Ray 2.60), which no training step can afford.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    noted: Any = getattr(get_train_context(), "preemption_context", None)
    info = getattr(noted, "preemption_info", None)
    return {} if info is None else info.preempted_node_to_ranks
