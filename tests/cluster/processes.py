"""The Ray Train workers that a test has started, found and ended by process id.

The root is a process; None: this one.
"""

import os
from pathlib import Path
import signal


def train_workers(run_dir: Path, root: int | None = None) -> dict[int, int]:
    """Return rank -> process id of the workers below a process that train a run of two workers at most.

    The first worker is the one that has the run's metrics file open.
    """
    parents = {pid: parent for pid, parent, _ in _processes()}
    workers = [pid for pid, _, name in _processes() if "RayTrainWorker" in name and _is_below(pid, parents, root)]
    first = [pid for pid in workers if _has_open(pid, run_dir / "metrics.jsonl")]
    others = [pid for pid in workers if pid not in first]
    return dict(enumerate([*first, *others])) if first else {}


def kill_worker(run_dir: Path, rank: int, number: int = signal.SIGKILL, root: int | None = None) -> bool:
    """Send a signal to a worker below a process; False when it is not there (yet)."""
    found = train_workers(run_dir, root).get(rank)
    if found is None:
        return False
    os.kill(found, number)
    return True


def descendants(root: int) -> dict[int, str]:
    """Return process id -> command line of the processes that a process has started, and theirs."""
    found = _processes()
    parents = {pid: parent for pid, parent, _ in found}
    return {pid: name for pid, _, name in found if _is_below(pid, parents, root)}


def _processes() -> list[tuple[int, int, str]]:
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            name = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended
            continue
        found.append((int(path.name), int(fields[1]), name))
    return found


def _is_below(pid: int, parents: dict[int, int], root: int | None = None) -> bool:
    root = root or os.getpid()
    while (pid := parents.get(pid, 0)) > 1:
        if pid == root:
            return True
    return False


def _has_open(pid: int, file: Path) -> bool:
    try:
        return any(os.path.samefile(link, file) for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists())  # noqa: PTH121
    except OSError:
        return False
