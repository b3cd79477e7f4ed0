"""Gives back the resources of workers whose controller was killed.

Ray 2.60 frees a placement group once its creator and the job of its creator are over. A controller that is
killed, with its trial or by hand, would leave its workers' CPUs taken for as long as the driver lives.
"""

import threading
import time

import ray

# the seam to Ray's private tables: its public ones ask the dashboard, which may be missing or of another cluster
from ray._private.state import state as gcs_state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # pyright: ignore[reportAttributeAccessIssue]
from ray.util.placement_group import PlacementGroup, remove_placement_group

_LOOK_INTERVAL_S = 1.0


def free_after_death(actor_id: str) -> None:
    """Have the placement groups that an actor makes removed once it is dead; returns at once.

    A small process that outlives the actor looks for it each second, and ends after it.

    Args:
        actor_id: in hexadecimal.
    """
    watch = ray.remote(num_cpus=0)(_Watch)
    # DEFAULT: a trial's actor, which lives in a placement group, would put it there too
    head = {"node:__internal_head__": 0.001}
    watch.options(lifetime="detached", resources=head, scheduling_strategy="DEFAULT").remote(actor_id)


def groups_of(actor_id: str) -> list[PlacementGroup]:
    """Return the placement groups that an actor has made and nobody has removed, also those that wait for room."""
    found = []
    for content in gcs_state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(content)
        if group.creator_actor_id.hex() == actor_id and group.state != PlacementGroupTableData.REMOVED:
            found.append(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return found


def is_dead(actor_id: str) -> bool:
    """Return whether the cluster knows that an actor is dead; no answer is no death."""
    try:
        return gcs_state.actor_table(actor_id).get("State") == "DEAD"
    except Exception:  # noqa: BLE001 (of several private kinds, while the head is away)
        return False


class _Watch:
    """Waits in a thread of its own: a constructor has to return."""

    def __init__(self, actor_id: str) -> None:
        threading.Thread(target=self._wait, args=(actor_id,), daemon=True).start()

    def _wait(self, actor_id: str) -> None:
        while not is_dead(actor_id):
            time.sleep(_LOOK_INTERVAL_S)
        for group in groups_of(actor_id):
            remove_placement_group(group)
        ray.kill(ray.get_runtime_context().current_actor)
