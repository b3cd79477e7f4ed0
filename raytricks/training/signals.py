"""Turn Ctrl-C and SIGTERM into a request that the loop obeys after the current step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

LEAVE = 1000
"""Asked for like a signal: save and stop, to go on at once with other workers. No signal has this number."""


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is kept; a second SIGINT raises KeyboardInterrupt.

    Calling it returns the signal's number, or 0. Handlers are put back on exit. Outside the main
    thread, where Python allows no handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self._received = 0
        self._previous: dict[int, Any] = {}

    def __call__(self) -> int:
        return self._received

    def __enter__(self) -> "StopSignals":
        self.install()
        return self

    def install(self) -> None:
        """Catch the signals (again): a library may take them over, as `ray.init` does with SIGTERM."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.signal(number, self._receive)
                self._previous.setdefault(number, previous)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number
