"""Connect to the cluster of RAY_ADDRESS, or start Ray on this machine, without its chatter."""

from collections.abc import Iterator
from contextlib import contextmanager
import logging
import os
import signal
import threading
from typing import Any

from raytricks.cluster.authentication import HOW_TO_NAME_A_TOKEN, prepare_authentication, protect_token_file
from raytricks.cluster.checks.cluster import check_reachable, cluster_address
from raytricks.cluster.checks.folders import check_sockets, check_user
from raytricks.cluster.follower import FitThread
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
    require_reachable()
    prepare_environment()
    # after the environment is set; Ray reads it on import
    from ray._private import auto_init_hook
    import ray.exceptions

    is_ours = not ray.is_initialized()
    if is_ours:
        address = cluster_address() or "local"
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            for found in (check_user(), check_sockets()):
                if found.status == "FAIL":
                    raise ClusterError(f"{found.found}; {found.remedy}")
            options["include_dashboard"] = False
        try:
            with _keeping_sigterm():
                ray.init(address=address, **options)
        except (ray.exceptions.AuthenticationError, ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            first_line = str(error).strip().splitlines()[0]
            # a wrong token looks like a cluster that does not answer (Ray 2.60)
            token = "" if address == "local" else f"; if it wants a token, {HOW_TO_NAME_A_TOKEN}"
            raise ClusterError(f"Ray at {address!r} cannot be used: {first_line}; check RAY_ADDRESS{token}") from None
        finally:
            protect_token_file()
    connects = auto_init_hook.enable_auto_connect
    auto_init_hook.enable_auto_connect = False  # else a thread that outlives the session starts Ray again
    for name in ("ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield dict(ray.cluster_resources())
    finally:
        if is_ours:
            ray.shutdown()
        if not any(isinstance(thread, FitThread) for thread in threading.enumerate()):
            auto_init_hook.enable_auto_connect = connects


def require_reachable() -> None:
    """Refuse a RAY_ADDRESS where nothing answers, for which Ray itself would look for minutes; imports no Ray.

    Raises:
        ClusterError: nothing there, or no head of a cluster.
    """
    address = cluster_address()
    trouble = None if address is None else check_reachable(address)
    if trouble is not None:
        raise ClusterError(f"{trouble.found}; {trouble.remedy}")


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Give SIGTERM back to a handler of ours: `ray.init` takes it over, and exits on it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if callable(handler) and end.code == signal.SIGTERM:
            handler(signal.SIGTERM, None)
        raise
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def require_resources(resources: dict[str, float], *, num_workers: int, cpus_per_worker: int, use_gpu: bool) -> None:
    """Refuse what a cluster can never give, by its resources as a whole; see `raytricks.cluster.placement`.

    Raises:
        ClusterError: fewer CPUs or GPUs than the workers need.
    """
    require_room([resources], num_workers=num_workers, cpus_per_worker=cpus_per_worker, use_gpu=use_gpu)
