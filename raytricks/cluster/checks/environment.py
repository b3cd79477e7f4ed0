"""Look at the environment of a run: this machine, and the cluster of RAY_ADDRESS.

this machine    versions, devices, memory, limits, disks, storage, data, token    (no Ray is started)
the cluster     reached, large enough, the same from every node, closed to strangers
distributed     two workers that really train
"""

from collections.abc import Iterator
from pathlib import Path

from raytricks.cluster.checks.access import check_token
from raytricks.cluster.checks.cluster import check_workers, cluster_address
from raytricks.cluster.checks.folders import check_sockets, check_user, ray_directory
from raytricks.cluster.checks.machine import RAY_DISK, check_devices, check_machines, check_versions, count_gpus
from raytricks.cluster.checks.probe import read_facts
from raytricks.cluster.checks.result import CheckResult, ok
from raytricks.cluster.checks.storage import check_data_here, check_storage_here
from raytricks.cluster.session import prepare_environment
from raytricks.config import ExperimentConfig


def check_environment(config: ExperimentConfig, *, distributed: bool = False) -> Iterator[CheckResult]:
    """Yield what each check finds, as soon as it is known; nothing is left behind.

    Args:
        config: of the run that the environment is for.
        distributed: also train with two workers, on the cluster or on a Ray started here for it.
    """
    address = cluster_address()
    output_dir = Path(config.output_dir).expanduser().resolve()
    yield check_versions()
    facts = read_facts({"output_dir": str(output_dir), RAY_DISK: str(ray_directory())})
    devices = check_devices(config, is_cluster=address is not None, cpus=facts["cpus"])
    yield devices
    yield from check_machines({"here": facts}, is_cluster=address is not None)
    yield check_user()
    yield check_sockets()
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
        prepare_environment()
        # the seam: Ray reads the environment when it is imported, and a machine without Ray has its lines above
        from raytricks.cluster.checks.on_ray import check_on_ray

        yield from check_on_ray(config, address, output_dir, use_gpu=use_gpu, distributed=distributed)
