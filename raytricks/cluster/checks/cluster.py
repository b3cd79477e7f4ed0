"""Reach the cluster of RAY_ADDRESS, before and after connecting to it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
import json
import os
import platform
import socket
import sys
from typing import Any

from raytricks.cluster.authentication import HOW_TO_NAME_A_TOKEN, MODE, token_source
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


def check_entry(address: str) -> CheckResult | None:
    """Say why the cluster would turn us away: its token, or other versions than here; None when it would not.

    Raises:
        ClusterError: RAY_AUTH_TOKEN_PATH names no file with a token.
    """
    if os.environ.get(MODE) == "token" and token_source() is None:  # on which Ray 2.60 aborts the process
        return fail("ray", f"{MODE}=token, and there is no token for {address}", HOW_TO_NAME_A_TOKEN)
    if address == "auto":
        return None
    import ray
    from ray.exceptions import AuthenticationError

    try:
        known = read_from_gcs(address, b"CLUSTER_METADATA", b"cluster")
    except AuthenticationError:
        if os.environ.get(MODE, "token") != "token":
            return fail("ray", f"{address} asks for a token, and {MODE} is {os.environ[MODE]}", f"unset {MODE}")
        ours = token_source()
        found = "there is none here" if ours is None else f"that of {ours} is another one's"
        return fail("ray", f"{address} asks for a token, {found}", HOW_TO_NAME_A_TOKEN)
    if known is None:
        return None  # connecting will tell why
    theirs = json.loads(known)
    pairs = {
        "Ray": (theirs.get("ray_version"), ray.__version__),
        "Python": (theirs.get("python_version"), platform.python_version()),
    }
    wrong = [f"{name} is {there} there, {here} here" for name, (there, here) in pairs.items() if there != here]
    if not wrong:
        return None
    return fail("ray", f"{address}: {'; '.join(wrong)}", "install the cluster's versions here, or use its image")


def read_from_gcs(address: str, key: bytes, namespace: bytes) -> bytes | None:
    """Return a value of the cluster's own store; None without one, or when it cannot be asked.

    Raises:
        ray.exceptions.AuthenticationError: the token is missing or wrong.
    """
    from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
    from ray.exceptions import AuthenticationError

    with _without_native_stderr():
        try:
            return GcsClient(address=address).internal_kv_get(key, namespace=namespace, timeout=_TIMEOUT_S)
        except AuthenticationError:
            raise
        except Exception:  # noqa: BLE001 (Ray 2.60 raises several private kinds)
            return None


@contextmanager
def _without_native_stderr() -> Iterator[None]:
    """Ray's C++ part tells of each attempt on file descriptor 2, whatever its log level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def dashboard_address() -> str | None:
    """Return where the cluster that Ray is connected to says that its dashboard is."""
    import ray

    known = read_from_gcs(ray.get_runtime_context().gcs_address, b"dashboard", b"dashboard")
    return None if known is None else known.decode()


def name_nodes() -> tuple[dict[str, str], set[str], int]:
    """Return name -> id of the nodes that are alive, their addresses, and how many have gone."""
    import ray

    nodes = ray.nodes()
    alive = [node for node in nodes if node["Alive"]]
    hosts = [node["NodeManagerAddress"] for node in alive]
    named = {
        node["NodeManagerAddress"]
        if hosts.count(node["NodeManagerAddress"]) == 1
        else f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})": node["NodeID"]
        for node in alive
    }
    return named, set(hosts), len(nodes) - len(alive)


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
