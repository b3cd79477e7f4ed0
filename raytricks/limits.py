"""The CPUs and the memory that this process may use: those of the machine, its affinity and its container.

Ray carries this module to nodes by value, so it imports the standard library only. Limits of containers
are read from cgroup v2 and v1 (kernel: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
"""

from collections.abc import Callable, Iterator
import os
from pathlib import Path

_ROOT = Path("/")
_MEMORY_V1, _CPU_V1 = "memory", "cpu"


def usable_cpus(root: Path = _ROOT) -> int:
    """Return the CPUs, no more than the affinity and the container's quota allow; at least one.

    Args:
        root: of the file system, where /proc and /sys are.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota_v2(group) for group in _groups(root, "")] + [_quota_v1(group) for group in _groups(root, _CPU_V1)]
    return max(1, min([count, *(int(quota) for quota in quotas if quota is not None)]))


def memory_bytes(root: Path = _ROOT) -> int:
    """Return the memory of the machine, or of the container where that is less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *(limit for limit, _ in _memory_limits(root))])


def available_memory_bytes(root: Path = _ROOT) -> int:
    """Return the memory that can still be taken without swapping: of the machine, or of the container."""
    free = _meminfo(root, "MemAvailable")
    if free is None:
        name = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
        free = os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    return max(0, min([free, *(limit - used for limit, used in _memory_limits(root))]))


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use, bytes, of each control group above this process that has a limit.

    File pages that were not used lately count as free: the kernel drops them before it kills.
    """
    for groups, limit_file, used_file, cached in (
        (_groups(root, ""), "memory.max", "memory.current", "inactive_file"),
        (_groups(root, _MEMORY_V1), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in groups:
            limit = _number(group / limit_file)
            if limit is not None:
                yield limit, max(0, (_number(group / used_file) or 0) - _statistic(group / "memory.stat", cached))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield this process's control group and those above it; controller "" is that of cgroup v2.

    A container without a namespace of its own names a group of the host, which is not there: its own is then on top.
    """
    top = root / "sys/fs/cgroup" / controller
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    path = next((path for _, names, path in fields if controller in names.split(",")), None)
    if path is None:
        return
    group = Path(os.path.normpath(top / path.strip("/")))
    while group != top and group.is_relative_to(top):
        yield group
        group = group.parent
    yield top


def _quota_v2(group: Path) -> float | None:
    return _ratio(lambda: (group / "cpu.max").read_text().split())


def _quota_v1(group: Path) -> float | None:
    return _ratio(lambda: [(group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")])


def _ratio(read: Callable[[], list[str]]) -> float | None:
    try:
        quota, period = (int(text) for text in read())
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return None if quota <= 0 or period <= 0 else max(1.0, quota / period)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _statistic(path: Path, name: str) -> int:
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return next((int(pair[1]) for pair in pairs if pair[:1] == [name]), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _meminfo(root: Path, name: str) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
    except (OSError, ValueError, IndexError):
        return None
