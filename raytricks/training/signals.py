"""Turn Ctrl-C and SIGTERM into an end at once, or into a request that the loop obeys after the current step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from raytricks.errors import InterruptedRun

LEAVE = 1000
"""Asked for like a signal: save and stop, to go on at once with other workers. No signal has this number."""


class _StopAtOnce(KeyboardInterrupt):
    """Passes through libraries that catch every Exception."""


class StopSignals:
    """While entered, SIGINT and SIGTERM end what runs with InterruptedRun, until `install()`.

    From then on, where somebody asks for them and can save, the first one is kept, and a second SIGINT
    raises KeyboardInterrupt. Calling it returns the signal's number, or 0. Handlers are put back on exit.
    Outside the main thread, where Python allows no handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self._received = 0
        self._keeps = False
        self._previous: dict[int, Any] = {}

    def __call__(self) -> int:
        return self._received

    def __enter__(self) -> "StopSignals":
        self._catch()
        return self

    def install(self) -> None:
        """Keep the signals from now on; catch them again, as a library may have taken them over."""
        self._keeps = True
        self._catch()

    def _catch(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.signal(number, self._receive)
                self._previous.setdefault(number, previous)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if kind is _StopAtOnce:
            raise InterruptedRun("stopped before the first step", self._received) from None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._keeps:
            self._received = number
            raise _StopAtOnce
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number
