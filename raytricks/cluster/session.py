"""Connect to the cluster of RAY_ADDRESS, or start Ray on this machine, without its chatter."""

from collections.abc import Iterator
from contextlib import contextmanager
import logging
import os
from typing import Any

from raytricks.cluster.authentication import HOW_TO_NAME_A_TOKEN, prepare_authentication, protect_token_file
from raytricks.cluster.placement import require_room
from raytricks.errors import ClusterError

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray 2.60 warns about it at each start otherwise
    # report() returns at the controller's next poll, every 2 s by default (Ray 2.60)
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_V2_ENABLED": "1",
    # a node that is drained is noticed after at most 5 s by default (Ray 2.60); some clouds give 30 s
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    # else a thread that outlives the session starts Ray again
    "RAY_ENABLE_AUTO_CONNECT": "0",
}


def prepare_environment() -> None:
    """Set what Ray reads from the environment when it is imported and when its processes start."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    prepare_authentication()


@contextmanager
def ray_session() -> Iterator[dict[str, float]]:
    """Have Ray running while entered; yields the cluster's resources, such as {"CPU": 2.0}.

    A cluster named by RAY_ADDRESS is used and left running. Otherwise one is started here with
    address="local" (Ray would else join any cluster that happens to run) and stopped at the end. A token
    that exists is used, and the one that Ray may write is made readable for its owner only.

    Raises:
        ClusterError: no cluster at the address, or Ray does not start.
    """
    prepare_environment()
    import ray.exceptions  # after the environment is set; Ray reads it on import

    is_ours = not ray.is_initialized()
    if is_ours:
        address = os.environ.get("RAY_ADDRESS", "local")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options["include_dashboard"] = False
        try:
            ray.init(address=address, **options)
        except (ray.exceptions.AuthenticationError, ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            first_line = str(error).strip().splitlines()[0]
            # a wrong token looks like a cluster that does not answer (Ray 2.60)
            token = "" if address == "local" else f"; if it wants a token, {HOW_TO_NAME_A_TOKEN}"
            raise ClusterError(f"Ray at {address!r} cannot be used: {first_line}; check RAY_ADDRESS{token}") from None
        finally:
            protect_token_file()
    for name in ("ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield dict(ray.cluster_resources())
    finally:
        if is_ours:
            ray.shutdown()


def require_resources(resources: dict[str, float], *, num_workers: int, cpus_per_worker: int, use_gpu: bool) -> None:
    """Refuse what a cluster can never give, by its resources as a whole; see `raytricks.cluster.placement`.

    Raises:
        ClusterError: fewer CPUs or GPUs than the workers need.
    """
    require_room([resources], num_workers=num_workers, cpus_per_worker=cpus_per_worker, use_gpu=use_gpu)
