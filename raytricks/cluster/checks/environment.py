"""Look at the environment of a run: this machine, and the cluster of RAY_ADDRESS.

this machine    versions, devices, memory, limits, disks, storage, data, token    (no Ray is started)
the cluster     reached, large enough, the same from every node, closed to strangers
distributed     two workers that really train
"""

from collections.abc import Iterator
import os
from pathlib import Path

from raytricks.cluster.checks.access import check_dashboard, check_token, judge_cluster_authentication
from raytricks.cluster.checks.cluster import (
    check_entry,
    check_reachable,
    check_workers,
    cluster_address,
    dashboard_address,
    judge_nodes_alive,
    name_nodes,
)
from raytricks.cluster.checks.distributed import check_distributed
from raytricks.cluster.checks.machine import RAY_DISK, check_devices, check_machines, check_versions, count_gpus
from raytricks.cluster.checks.nodes import NodeAnswers, ask_nodes, judge_nodes
from raytricks.cluster.checks.probe import read_facts
from raytricks.cluster.checks.result import CheckResult, fail, ok
from raytricks.cluster.checks.storage import check_data_here, check_storage_here, local_data_path, open_trial_directory
from raytricks.cluster.placement import alive_nodes
from raytricks.cluster.session import prepare_environment, ray_session
from raytricks.config import ExperimentConfig
from raytricks.errors import ClusterError


def check_environment(config: ExperimentConfig, *, distributed: bool = False) -> Iterator[CheckResult]:
    """Yield what each check finds, as soon as it is known; nothing is left behind.

    Args:
        config: of the run that the environment is for.
        distributed: also train with two workers, on the cluster or on a Ray started here for it.
    """
    address = cluster_address()
    output_dir = Path(config.output_dir).expanduser().resolve()
    yield check_versions()
    facts = read_facts({"output_dir": str(output_dir), RAY_DISK: str(_ray_directory())})
    devices = check_devices(config, is_cluster=address is not None, cpus=facts["cpus"])
    yield devices
    yield from check_machines({"here": facts}, is_cluster=address is not None)
    yield check_storage_here(output_dir)
    yield check_data_here(config.data)
    yield check_token()
    is_torch_there = devices.status == "ok"
    use_gpu = config.hardware.device == "cuda"
    if config.hardware.device == "auto":
        use_gpu = is_torch_there and count_gpus() > 0
    if address is None:
        yield ok("ray", "RAY_ADDRESS is not set: a run with workers starts Ray on this machine")
        gpus = count_gpus() if is_torch_there else 0
        yield check_workers(config, [{"CPU": facts["cpus"], "GPU": gpus}], use_gpu=use_gpu)
    if address is not None or distributed:
        yield from _check_ray(config, address, output_dir, use_gpu=use_gpu, distributed=distributed)


def _check_ray(
    config: ExperimentConfig, address: str | None, output_dir: Path, *, use_gpu: bool, distributed: bool
) -> Iterator[CheckResult]:
    """Yield what can be seen with Ray only."""
    try:
        if address is not None:
            prepare_environment()
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


def _ray_directory() -> Path:
    """Return where Ray 2.60 on Linux puts its sessions."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")
