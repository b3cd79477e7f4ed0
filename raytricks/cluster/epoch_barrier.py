"""Lockstep of a trial with its workers: no epoch is begun before it is granted.

Two files in the run's directory hold an epoch each, counted from 1. Without them the workers would be
an epoch further than Ray Tune knows when it stops the trial or hands its weights to another.
"""

from collections.abc import Callable
from pathlib import Path
import time

_REACHED, _GRANTED = ".epoch-reached", ".epoch-granted"
_POLL_INTERVAL_S = 0.02


class EpochBarrier:
    """The two files of a run."""

    def __init__(self, run_dir: Path) -> None:
        self._reached, self._granted = run_dir / _REACHED, run_dir / _GRANTED

    @property
    def reached(self) -> int:
        """The last epoch that the workers have made and saved."""
        return _read(self._reached)

    def grant(self, epoch: int) -> None:
        """Let the workers make epochs up to this one."""
        _write(self._granted, epoch)

    def wait_after(self, epoch: int, *, is_first: bool, stop_requested: Callable[[], int]) -> bool:
        """Tell that an epoch is made and saved, and wait until the next one is granted; in each worker.

        Returns:
            False when a stop was requested instead.
        """
        if is_first:
            _write(self._reached, epoch)
        while _read(self._granted) <= epoch:
            if stop_requested():
                return False
            time.sleep(_POLL_INTERVAL_S)
        return True

    def clear(self) -> None:
        """Remove the files."""
        self._reached.unlink(missing_ok=True)
        self._granted.unlink(missing_ok=True)


def _read(path: Path) -> int:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _write(path: Path, epoch: int) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(str(epoch))
    temporary.replace(path)
