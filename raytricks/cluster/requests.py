"""Requests to the workers of a run, and an epoch at a time, as files in its directory.

    .stop-requested    holds a signal number: save, stop, and tell the user how to go on
    .leave-requested   save and leave: the workers are begun again, in another number or on other nodes
    .running           the first worker has begun: from here on a stop is obeyed after the current step
    .left              the first worker has left, after it saved
    .epoch-reached, .epoch-granted   lockstep of a trial with its workers, who begin no epoch that is not granted:
                       they would else be an epoch further than Ray Tune knows when it stops the trial or hands
                       its weights to another

The driver and Ray Train's controller write, the workers read; all share the run's directory.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
import time

from raytricks.training.signals import LEAVE

STOP_FILE = ".stop-requested"
RAY_FOLDER = ".ray"
"""Ray's own bookkeeping of a launch, of use to nobody after it."""
_LEAVE_FILE, _LEFT_FILE, _RUNNING_FILE = ".leave-requested", ".left", ".running"
_READ_INTERVAL_S = 0.1  # a loop of short steps must not ask a network file system in each of them
_WAIT_INTERVAL_S = 0.05


def requested_stop(run_dir: Path) -> int:
    """Return the signal number that the driver passed on, or 0."""
    try:
        return int((run_dir / STOP_FILE).read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


class Requests:
    """What the workers of a run are asked for."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._leave, self._left = run_dir / _LEAVE_FILE, run_dir / _LEFT_FILE
        self._running = run_dir / _RUNNING_FILE
        self._read_at, self._pending = 0.0, 0

    def clear(self) -> None:
        """Forget all requests, before workers begin."""
        for path in (self._run_dir / STOP_FILE, self._leave, self._left, self._running):
            path.unlink(missing_ok=True)

    def pending(self) -> int:
        """Return the signal number asked for, LEAVE or 0; looks a few times a second. For workers."""
        now = time.monotonic()
        if not self._pending and now - self._read_at >= _READ_INTERVAL_S:
            self._read_at = now
            self._pending = requested_stop(self._run_dir) or (LEAVE if self._leave.exists() else 0)
        return self._pending

    def note_running(self) -> None:
        """Tell that the workers have begun, and obey requests. For the first worker."""
        self._running.touch()

    @property
    def are_running(self) -> bool:
        """Whether workers have begun that have not left."""
        return self._running.exists()

    def note_left(self) -> None:
        """Tell that the workers do nothing more; what was to be saved is saved. For the first worker.

        A directory that is not there, or not writable, has made them fail already: that is what to tell of.
        """
        with suppress(OSError):
            self._left.touch()
            self._running.unlink(missing_ok=True)

    def ask_to_leave(self) -> None:
        """Ask the workers to save and leave."""
        self._left.unlink(missing_ok=True)
        self._leave.touch()

    def await_leave(self, timeout_s: float) -> bool:
        """Wait until the workers have left; takes the request back either way. Returns whether they did."""
        give_up_at = time.monotonic() + timeout_s
        while not self._left.exists() and time.monotonic() < give_up_at:
            time.sleep(_WAIT_INTERVAL_S)
        has_left = self._left.exists()
        self.take_back_leave()
        return has_left

    def take_back_leave(self) -> None:
        """Forget that the workers were asked to leave."""
        self._leave.unlink(missing_ok=True)
        self._left.unlink(missing_ok=True)


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
