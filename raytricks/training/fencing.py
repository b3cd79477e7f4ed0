"""Who carries a run out: the newest launch, and nobody else.

A launch that was thought dead (its machine cut off, its driver killed) may come back to a run that
another one has gone on with. Each launch leaves a mark of its own in the run's directory, and saves
only as long as it finds that mark there.
"""

from pathlib import Path
import time
import uuid

from raytricks.errors import ClusterError, RaytricksError
from raytricks.files import write_atomically

_FILE = ".launch"
_VISIBLE_WAIT_S = 15  # network file systems show a new file after some seconds


def begin_launch(run_dir: Path) -> str:
    """Leave a new mark in a run's directory; returns it."""
    launch = uuid.uuid4().hex
    write_atomically(run_dir / _FILE, launch.encode())
    return launch


def require_newest(run_dir: Path, launch: str | None) -> None:
    """Raise RaytricksError when another launch carries the run out by now; None: no mark was left."""
    if launch is not None and _read(run_dir) not in (launch, None):
        raise RaytricksError(
            f"{run_dir}: the run was started again elsewhere, so this launch of it stops; the other one goes on"
        )


def require_visible(run_dir: Path, launch: str | None, *, host: str, wait_s: float = _VISIBLE_WAIT_S) -> None:
    """Raise ClusterError when the run's directory is not the one that the driver has made.

    Args:
        host: of this worker.
        wait_s: for the driver's mark to appear.
    """
    give_up_at = time.monotonic() + wait_s
    while launch is not None and _read(run_dir) != launch:
        if time.monotonic() > give_up_at:
            raise ClusterError(
                f"{run_dir} on {host} is not the directory that the run was started in; set output_dir to storage that "
                "all nodes of the cluster share"
            )
        time.sleep(0.2)


def _read(run_dir: Path) -> str | None:
    try:
        return (run_dir / _FILE).read_text()
    except OSError:
        return None
