"""Nodes that are about to be taken away, as a worker learns it from Ray Train."""

from typing import Any


def preempted_ranks() -> list[int]:
    """Return the workers whose nodes are being drained; an empty list while there are none.

    What Ray Train has told this worker: `ray.train.get_preemption_info()` answers the same, but asks
    an actor and waits for all workers in each call (Ray 2.60), which no training step can afford.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    noted: Any = getattr(get_train_context(), "preemption_context", None)
    info = getattr(noted, "preemption_info", None)
    return [] if info is None else info.preempted_ranks
