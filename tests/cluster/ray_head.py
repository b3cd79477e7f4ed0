"""A real head with its dashboard, as `ray start --head` makes one, with a home and ports of its own."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

_BIN = Path(sys.executable).parent
_AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


class RayHead:
    """A head that runs.

    Args:
        root: a short path; its `home` holds the token and its `ray` the files of Ray.
        url: of the dashboard.
        environment: of commands that use the head.
    """

    def __init__(self, root: Path, url: str, environment: dict[str, str]) -> None:
        self.root, self.url, self.environment = root, url, environment

    def raytricks(self, *arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess:
        """Run the command line; `changes` of the environment, an empty text takes a variable away."""
        return subprocess.run(
            [str(_BIN / "raytricks"), *arguments],
            cwd=cwd,
            env=self.changed(changes),
            capture_output=True,
            text=True,
            timeout=200,
        )

    def changed(self, changes: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in (self.environment | changes).items() if value}


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextmanager
def ray_head(token: str | None = None) -> Iterator[RayHead]:
    """Start a head on this machine, with a token if one is given; stopped at the end by its process group."""
    root = Path(tempfile.mkdtemp(prefix="rt-"))  # sockets need a short path
    home = root / "home"
    (home / ".ray").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name not in _AUTHENTICATION}
    environment |= {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    if token is not None:
        (home / ".ray" / "auth_token").write_text(token)
        environment["RAY_AUTH_MODE"] = "token"
    ports = free_ports(7)
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    names += ("dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
    command = [str(_BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true"]
    command += ["--disable-usage-stats", f"--temp-dir={root / 'ray'}", "--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    with (root / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{ports[1]}"
        _wait_for(url, process, root / "head.log")
        environment.pop("RAY_AUTH_MODE", None)  # a user's shell does not have it
        yield RayHead(root, url, environment | {"RAY_API_SERVER_ADDRESS": url})
    finally:
        _stop(process)
        shutil.rmtree(root, ignore_errors=True)


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    started_s = time.monotonic()
    while process.poll() is None and time.monotonic() - started_s < 90:
        try:
            urlopen(f"{url}/api/version", timeout=5).close()
            return
        except HTTPError:
            return  # it wants a token
        except (URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"Ray's head did not start: {log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen) -> None:
    """Ask the head's process group to end, then end it: a raylet that lingers keeps its files."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
