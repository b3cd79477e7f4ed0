"""Judge a machine: its packages, devices, memory and disks. The same rules hold here and on the nodes."""

from collections.abc import Callable, Iterator, Mapping
import importlib.metadata
import platform
from typing import Any
import warnings

from packaging.requirements import Requirement
from packaging.version import Version

from raytricks.cluster.checks.result import CheckResult, fail, ok, warn
from raytricks.config import ExperimentConfig

Facts = Mapping[str, Any]
"""What `raytricks.cluster.checks.probe.read_facts` returns."""
RAY_DISK = "Ray's temporary directory"

_GIB = 2**30
_LOW_DISK_BYTES, _NO_DISK_BYTES = 5 * _GIB, _GIB
_SPILL_LIMIT = 0.95  # Ray 2.60 spills no objects to a disk that is fuller
_OBJECT_STORE_PART = 0.3  # of the memory, which Ray wants in /dev/shm
_LOW_SHARED_MEMORY_BYTES = _GIB
_LOW_OPEN_FILES = 4096
_ORDER = ("ok", "warn", "FAIL")
_LEAST_PYTHON = (3, 11)
_SHOWN = ("ray", "torch", "torchvision", "pyarrow")
_WHY = {
    "ray": "older ones cannot announce a preemption",
    "torch": "before 2.10 a model file can run code (CVE-2026-24747)",
}


def check_versions() -> CheckResult:
    """Compare the installed packages with what raytricks requires; imports none of them."""
    python = platform.python_version_tuple()
    found = [f"Python {platform.python_version()}"] + [f"{p} {_version(p) or 'missing'}" for p in _SHOWN]
    wrong = [] if (int(python[0]), int(python[1])) >= _LEAST_PYTHON else ["Python is older than 3.11"]
    old_ray = None
    for requirement in _requirements():
        version = _version(requirement.name)
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            continue
        reason = f" ({_WHY[requirement.name]})" if requirement.name in _WHY else ""
        line = f"{requirement.name} {version or 'is missing'}, wanted {requirement.specifier}{reason}"
        if requirement.name == "ray" and version is not None and Version(version) >= Version("2"):
            old_ray = line
        else:
            wrong.append(line)
    if wrong:
        return fail("versions", "; ".join(wrong), "pip install --upgrade raytricks, in a Python >= 3.11")
    if old_ray is not None:
        return warn("versions", old_ray, "pip install --upgrade 'ray[default,train,tune]'")
    return ok("versions", ", ".join(found))


def check_devices(config: ExperimentConfig, *, is_cluster: bool, cpus: int) -> CheckResult:
    """Look at the CPUs and GPUs of this machine.

    Args:
        is_cluster: the run's devices are those of a cluster, so this machine needs none.
    """
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            import torch
            import torchvision  # noqa: F401 (fails when it is not the one of this torch)

            from raytricks.tricks.mixed_precision import resolve_precision

            num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
            bf16 = "yes" if resolve_precision("auto", "cpu") == "bf16" else "no"
    except Exception as error:  # noqa: BLE001 (whatever a broken installation raises)
        reason = _first_line(error)
        return fail("devices", f"torch or torchvision cannot be imported: {reason}", "install them again, together")
    gpus = [torch.cuda.get_device_properties(i) for i in range(num_gpus)]
    shown = [f"{cpus} CPUs (fast bf16: {bf16})", *(f"{g.name} {g.total_memory / _GIB:.0f} GiB" for g in gpus)]
    found = ", ".join(shown if gpus else [*shown, "no GPU"])
    if config.hardware.device == "cuda" and not gpus and not is_cluster:
        why = next((f" ({_first_line(w.message)})" for w in said if "CUDA" in str(w.message)), "")
        return fail(
            "devices", f"hardware.device is cuda, torch finds no usable GPU{why}; {found}", "set hardware.device=cpu"
        )
    return ok("devices", found)


def count_gpus() -> int:
    """Return the GPUs that torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def check_machines(machines: Mapping[str, Facts], *, is_cluster: bool) -> Iterator[CheckResult]:
    """Judge memory, limits and disks of some machines; one line a subject.

    Args:
        machines: name -> facts; the name is shown when there is more than one.
        is_cluster: Ray's processes open more files there.
    """
    yield _worst(machines, lambda facts: judge_shared_memory(facts))
    yield _worst(machines, lambda facts: judge_open_files(facts, is_cluster=is_cluster))
    for label in next(iter(machines.values()))["disks"]:
        yield _worst(machines, lambda facts, label=label: judge_disk(label, facts["disks"][label]))


def judge_shared_memory(facts: Facts) -> CheckResult:
    """Say whether Ray's object store fits into /dev/shm."""
    space, subject = facts["shared_memory"], "shared memory"
    if space is None:
        return ok(subject, "no /dev/shm; Ray's object store lies on disk")
    wanted = int(_OBJECT_STORE_PART * facts["memory_bytes"])
    found = f"/dev/shm: {_gib(space['free'])} of {_gib(space['total'])} free"
    remedy = f"give a container more: --shm-size={-(-wanted // _GIB)}g (Kubernetes: an emptyDir of medium Memory)"
    if space["free"] < _LOW_SHARED_MEMORY_BYTES:
        return warn(subject, found, remedy)
    if space["free"] < wanted:
        return warn(subject, f"{found}, Ray wants {_gib(wanted)} and may put its objects on disk", remedy)
    return ok(subject, found)


def judge_open_files(facts: Facts, *, is_cluster: bool) -> CheckResult:
    """Say whether a process may open enough files."""
    limit, subject = facts["open_files"], "open files"
    if limit is None:
        return ok(subject, "no limit")
    if is_cluster and limit < _LOW_OPEN_FILES:
        return warn(subject, f"at most {limit:,} a process", f"ulimit -n {16 * _LOW_OPEN_FILES}, before `ray start`")
    return ok(subject, f"at most {limit:,} a process")


def judge_disk(label: str, disk: Mapping[str, Any]) -> CheckResult:
    """Say whether a disk has room.

    Args:
        disk: path; total and free, bytes.
    """
    subject = "disk for runs" if label == "output_dir" else "disk for Ray"
    found = f"{disk['path']}: {_gib(disk['free'])} of {_gib(disk['total'])} free"
    setting = "set output_dir to another disk" if label == "output_dir" else "set RAY_TMPDIR to another disk"
    remedy = f"free some space, or {setting}"
    if disk["free"] < _NO_DISK_BYTES:
        return fail(subject, found, remedy)
    if disk["free"] < _LOW_DISK_BYTES:
        return warn(subject, found, remedy)
    if label == RAY_DISK and disk["free"] < (1 - _SPILL_LIMIT) * disk["total"]:
        return warn(subject, f"{found}; Ray spills no objects to a disk that is more than 95% full", remedy)
    return ok(subject, found)


def _worst(machines: Mapping[str, Facts], judge: Callable[[Facts], CheckResult]) -> CheckResult:
    """Return the result of all machines in one: the worst status, and the machines that have it."""
    results = {name: judge(facts) for name, facts in machines.items()}
    first = max(results.values(), key=lambda result: _ORDER.index(result.status))
    named = {name: result for name, result in results.items() if result.status == first.status}
    if len(machines) == 1:
        return first
    if first.status == "ok":
        return ok(first.subject, f"{len(machines)} nodes, such as {next(iter(named))}: {first.found}")
    found = "; ".join(f"{name}: {result.found}" for name, result in list(named.items())[:3])
    more = f"; {len(named) - 3} more nodes" if len(named) > 3 else ""
    return CheckResult(first.subject, first.status, found + more, first.remedy)


def _requirements() -> list[Requirement]:
    """Return what raytricks needs without its extras."""
    try:
        lines = importlib.metadata.requires("raytricks") or []
    except importlib.metadata.PackageNotFoundError:  # it travelled with a job
        return []
    found = [Requirement(line) for line in lines]
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.1f} GiB"


def _first_line(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
