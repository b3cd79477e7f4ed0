"""A real cluster of two nodes on this machine, the second of which has a directory of its own at one path."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from ray_head import free_ports

_BIN = Path(sys.executable).parent
_PRIVATE = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_START_S = 90
_SMALL = ["--object-store-memory=80000000", "--disable-usage-stats", "--block"]


@dataclass(frozen=True)
class Nodes:
    """A cluster that runs.

    Attributes:
        root: a directory of its own; `root/apart` is another one on the second node, `root/shared` is shared.
        address: of the head, host:port.
        environment: of commands that use it.
        is_apart: the second node really has another `apart`, which takes the right to mount.
    """

    root: Path
    address: str
    dashboard_port: int
    environment: dict[str, str]
    is_apart: bool

    def check(self, *arguments: str, **changes: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Run `raytricks check --json`; returns its exit code and its results by subject."""
        done = subprocess.run(
            [str(_BIN / "raytricks"), "check", "--json", *arguments],
            cwd=self.root,
            env=self.environment | changes,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.stderr == "", done.stderr
        return done.returncode, {found["check"]: found for found in json.loads(done.stdout)["checks"]}

    def run_python(self, code: str) -> None:
        """Run some code with the cluster's environment."""
        subprocess.run([sys.executable, "-c", code], env=self.environment, check=True, capture_output=True, timeout=60)


@contextmanager
def ray_nodes(*, dashboard_host: str, token: str | None = None, num_nodes: int = 2) -> Iterator[Nodes]:
    """Start a head and perhaps a second node; their process groups are ended at the end."""
    root = Path(tempfile.mkdtemp(prefix="rc-"))  # sockets need a short path
    for name in ("home/.ray", "apart", "shared"):
        (root / name).mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name not in _PRIVATE}
    environment |= {"HOME": str(root / "home"), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    ray_environment = environment
    if token is not None:
        path = root / "home" / ".ray" / "auth_token"
        path.write_text(token)
        path.chmod(0o600)
        ray_environment = environment | {"RAY_AUTH_MODE": "token"}
    started: list[subprocess.Popen] = []
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    ports = free_ports(len(names))
    head = [str(_BIN / "ray"), "start", "--head", "--num-cpus=2", f"--temp-dir={root / 'ray'}", *_SMALL]
    head += [f"--dashboard-host={dashboard_host}", "--min-worker-port=0", "--max-worker-port=0"]
    head += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    node = [str(_BIN / "ray"), "start", f"--address=127.0.0.1:{ports[0]}", "--num-cpus=1", *_SMALL]
    node += ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_ports(1)[0]}"]
    is_apart = _may_mount()
    if is_apart:
        mount = 'mount -t tmpfs -o size=8m none "$0" && exec "$@"'
        node = ["unshare", "--mount", "sh", "-c", mount, str(root / "apart"), *node]
    try:
        for command in [head, node][:num_nodes]:
            started.append(_start(command, ray_environment, root / f"node-{len(started)}.log"))
        address = f"127.0.0.1:{ports[0]}"
        yield Nodes(root, address, ports[1], environment | {"RAY_ADDRESS": address}, is_apart)
    finally:
        for process in reversed(started):
            _stop(process)
        shutil.rmtree(root, ignore_errors=True)


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    deadline_s = time.monotonic() + _START_S
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline_s:
            _stop(process)
            raise RuntimeError(f"a node did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.3)
    return process


def _stop(process: subprocess.Popen) -> None:
    """Ask `ray start` to end what it started, then end what lingers in its process group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(3)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(15)


def _may_mount() -> bool:
    """Return whether a process may have mounts of its own here; in most containers it may not."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0
