"""What can be seen of a cluster with Ray only: its versions and token, its nodes, a group of workers."""

from collections.abc import Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
import platform
import sys

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import AuthenticationError

from raytricks.cluster.authentication import HOW_TO_NAME_A_TOKEN, MODE, token_source
from raytricks.cluster.checks.access import check_dashboard, judge_cluster_authentication
from raytricks.cluster.checks.cluster import check_reachable, check_workers, judge_nodes_alive
from raytricks.cluster.checks.distributed import check_distributed
from raytricks.cluster.checks.nodes import NodeAnswers, ask_nodes, judge_nodes
from raytricks.cluster.checks.result import CheckResult, fail
from raytricks.cluster.checks.storage import local_data_path, open_trial_directory
from raytricks.cluster.placement import alive_nodes
from raytricks.cluster.session import ray_session
from raytricks.config import ExperimentConfig
from raytricks.errors import ClusterError

_TIMEOUT_S = 5.0


def check_on_ray(
    config: ExperimentConfig, address: str | None, output_dir: Path, *, use_gpu: bool, distributed: bool
) -> Iterator[CheckResult]:
    """Yield what can be seen with Ray only; arguments as of `check_environment`.

    Args:
        address: what RAY_ADDRESS names; None: Ray is started on this machine.
        output_dir: absolute.
        use_gpu: the run's workers take GPUs.
    """
    try:
        if address is not None:
            trouble = check_reachable(address) or check_entry(address)
            if trouble is not None:
                yield trouble
                return
        with ray_session() as resources:
            if address is not None:
                yield from _check_cluster(config, address, resources, output_dir, use_gpu=use_gpu)
            if distributed:
                yield check_distributed(config, resources, output_dir)
    except ClusterError as error:
        found, _, remedy = str(error).rpartition("; ")
        yield fail("ray", found or str(error), remedy or "check RAY_ADDRESS")


def _check_cluster(
    config: ExperimentConfig, address: str, resources: dict[str, float], output_dir: Path, *, use_gpu: bool
) -> Iterator[CheckResult]:
    nodes, hosts, num_gone = name_nodes()
    yield judge_nodes_alive(address, resources, len(nodes), num_gone)
    yield check_workers(config, alive_nodes(), use_gpu=use_gpu)
    data_path = local_data_path(config.data)
    try:
        with open_trial_directory(output_dir) as trial_dir:
            found = ask_nodes(nodes, trial_dir, output_dir, data_path)
    except OSError:  # the line of the storage here has said so
        found = NodeAnswers()
    yield from judge_nodes(found, output_dir, data_path)
    if found.answers:
        yield judge_cluster_authentication({answer["auth_mode"] for answer in found.answers.values()}, address)
    yield check_dashboard(dashboard_address(), hosts)


def check_entry(address: str) -> CheckResult | None:
    """Say why the cluster would turn us away: its token, or other versions than here; None when it would not.

    Raises:
        ClusterError: RAY_AUTH_TOKEN_PATH names no file with a token.
    """
    if os.environ.get(MODE) == "token" and token_source() is None:  # on which Ray 2.60 aborts the process
        return fail("ray", f"{MODE}=token, and there is no token for {address}", HOW_TO_NAME_A_TOKEN)
    if address == "auto":
        return None
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
    known = read_from_gcs(ray.get_runtime_context().gcs_address, b"dashboard", b"dashboard")
    return None if known is None else known.decode()


def name_nodes() -> tuple[dict[str, str], set[str], int]:
    """Return name -> id of the nodes that are alive, their addresses, and how many have gone."""
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
