"""The cluster of RAY_ADDRESS, as far as it can be judged without Ray: does it answer, is it large enough."""

from collections.abc import Mapping, Sequence
import os
import socket
from typing import Any

from raytricks.cluster.checks.result import CheckResult, fail, ok
from raytricks.cluster.placement import Node, require_room
from raytricks.config import ExperimentConfig
from raytricks.errors import ClusterError

_TIMEOUT_S = 5.0
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # RFC 9113, 3.4, empty settings
_HOW_TO_NAME = "set RAY_ADDRESS to the head's HOST:6379, or unset it to start Ray on this machine"


def cluster_address() -> str | None:
    """Return what RAY_ADDRESS names; None when Ray would be started on this machine."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def check_reachable(address: str) -> CheckResult | None:
    """Knock at the cluster's address, which Ray itself would do for minutes; None when it opens."""
    subject = "ray"
    if "://" in address:
        meant = "the dashboard's address, for `raytricks submit`" if address.startswith("http") else "for Ray's client"
        return fail(subject, f"RAY_ADDRESS={address} is {meant}, not the cluster's", _HOW_TO_NAME)
    if address == "auto":
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return fail(subject, f"RAY_ADDRESS={address} is not HOST:PORT", _HOW_TO_NAME)
    try:
        is_head = _speaks_grpc(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return fail(subject, f"nothing answers at RAY_ADDRESS={address} ({reason})", _HOW_TO_NAME)
    if not is_head:
        found = f"what answers at RAY_ADDRESS={address} is no head (perhaps its dashboard, or another service)"
        return fail(subject, found, _HOW_TO_NAME)
    return None


def _speaks_grpc(host: str, port: int) -> bool:
    """Greet a server in HTTP/2, the language of Ray's head; its first answer is a settings frame.

    Raises:
        OSError: nothing there.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True  # the greeting would have to be encrypted
    with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
        try:
            connection.sendall(_HTTP2_GREETING)
            return connection.recv(4)[3:] == b"\x04"
        except OSError:  # it hung up, or is silent
            return False


def judge_nodes_alive(address: str, resources: Mapping[str, Any], num_alive: int, num_gone: int) -> CheckResult:
    """Say what the cluster has."""
    gone = f", {num_gone} gone" if num_gone else ""
    nodes = f"{num_alive} node{'s' if num_alive > 1 else ''} alive{gone}"
    return ok("ray", f"{address}: {nodes}, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs")


def check_workers(config: ExperimentConfig, nodes: Sequence[Node], *, use_gpu: bool) -> CheckResult:
    """Say whether the workers of the run find room on the nodes; of a range, whether the fewest do."""
    subject, workers = "workers", config.fewest_workers
    if workers == 0:
        return ok(subject, "workers=0: one process, without Ray")
    cpus = config.hardware.cpus_per_worker or 1
    try:
        require_room(nodes, num_workers=workers, cpus_per_worker=cpus, use_gpu=use_gpu)
    except ClusterError as error:
        found, _, remedy = str(error).rpartition("; ")
        return fail(subject, found, remedy)
    device = " and a GPU" if use_gpu else ""
    most = f" to {config.most_workers}" if config.most_workers > workers else ""
    return ok(subject, f"workers={workers}{most} with {cpus} CPU{'s' if cpus > 1 else ''}{device} each find room")
