"""What a process may use, in a container and out of it."""

import os
from pathlib import Path

import pytest

from raytricks import limits
from raytricks.config.schema import DataConfig
from raytricks.data.prepared import cache_limit_bytes

MIB = 2**20


def write(root: Path, contents: dict[str, str]) -> Path:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


V2 = {
    "proc/meminfo": "MemTotal: 99999999 kB\nMemAvailable: 9999999 kB\n",
    "proc/self/cgroup": "0::/pod/box\n",
    "sys/fs/cgroup/pod/memory.max": str(800 * MIB),
    "sys/fs/cgroup/pod/memory.current": str(500 * MIB),
    "sys/fs/cgroup/pod/memory.stat": f"anon 1\ninactive_file {100 * MIB}\n",
    "sys/fs/cgroup/pod/box/memory.max": "max",
    "sys/fs/cgroup/pod/box/cpu.max": "max 100000",
    "sys/fs/cgroup/pod/cpu.max": "150000 100000",
}
V1 = {
    "proc/meminfo": V2["proc/meminfo"],
    "proc/self/cgroup": "5:memory:/docker/of-the-host\n3:cpu,cpuacct:/docker/of-the-host\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": str(800 * MIB),
    "sys/fs/cgroup/memory/memory.usage_in_bytes": str(500 * MIB),
    "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {100 * MIB}\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
}


@pytest.mark.parametrize("container", [V2, V1], ids=["v2, of a group above", "v1, without a namespace"])
def test_limits_of_a_container_count(tmp_path, container):
    root = write(tmp_path, container)
    assert limits.memory_bytes(root) == 800 * MIB
    assert limits.available_memory_bytes(root) == 400 * MIB  # 500 in use, 100 of them dropped at need
    assert limits.usable_cpus(root) == 1


def test_limits_of_a_machine_without_containers_are_its_own(tmp_path):
    root = write(tmp_path, {"proc/meminfo": "MemAvailable: 2048 kB\n", "proc/self/cgroup": "0::/\n"})
    assert limits.usable_cpus(root) == len(os.sched_getaffinity(0))
    assert limits.memory_bytes(root) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert limits.available_memory_bytes(root) == 2 * MIB


def test_limits_of_the_affinity_count_wherever_threads_are_made(monkeypatch):
    from raytricks.cluster.checks.probe import read_facts
    from raytricks.data.shard_format import default_threads

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert limits.usable_cpus() == default_threads("/data") == read_facts({})["cpus"] == 1


def test_limits_of_a_container_bound_the_cache_of_decoded_images(monkeypatch, tmp_path):
    root = write(tmp_path, V2)
    monkeypatch.setattr(limits.available_memory_bytes, "__defaults__", (root,))
    assert cache_limit_bytes(DataConfig()) == 200 * MIB
