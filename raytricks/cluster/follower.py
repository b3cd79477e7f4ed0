"""Follows a run on Ray: the thread of its `fit()`, and the records that its workers write, across their restarts."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import threading
from typing import Any

from raytricks.training.records import Record


class FitThread(threading.Thread):
    """Runs a `fit()`, so that the main thread keeps the signals and the screen.

    Attributes:
        result: what it returned.
        error: what it raised.
    """

    def __init__(self, fit: Callable[[], Any]) -> None:
        super().__init__(name="raytricks-fit", daemon=True)
        self._fit = fit
        self.error: BaseException | None = None
        self.result: Any = None

    def run(self) -> None:
        try:
            self.result = self._fit()
        except BaseException as error:  # noqa: BLE001 (handed to the main thread)
            self.error = error


class Follower:
    """Hands the new lines of a metrics file to a listener; those there from the start are known.

    Workers that begin again replace the file by one without the records after their checkpoint.
    """

    def __init__(self, path: Path, listener: Callable[[Record], None]) -> None:
        self._path, self._listener = path, listener
        self._inode = self._offset = 0
        self._known: list[int] = []  # hashes of the lines handed out
        self._read()

    def poll(self) -> None:
        """Hand out what is new."""
        for record in self._read():
            self._listener(record)

    def _read(self) -> list[Record]:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            inode = os.fstat(file.fileno()).st_ino
            is_new_file = inode != self._inode
            file.seek(0 if is_new_file else self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset = len(whole) + (0 if is_new_file else self._offset)
        lines = whole.splitlines()
        if is_new_file:
            self._inode = inode
            lines = self._without_known(lines)
        self._known += map(hash, lines)
        return [record for record in map(_parsed, lines) if record is not None]

    def _without_known(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines after those that the file shares with the one before; the others are forgotten."""
        count = 0
        for known, line in zip(self._known, lines, strict=False):
            if known != hash(line):
                break
            count += 1
        del self._known[count:]
        return lines[count:]


def _parsed(line: bytes) -> Record | None:
    try:
        return json.loads(line)
    except ValueError:  # of a line that a kill has cut off
        return None
