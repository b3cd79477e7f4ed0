"""The log of a job as it grows, over a stream that may break."""

import asyncio
from collections.abc import Callable
import re
from typing import Any

import aiohttp

_QUIET_S = 10.0
"""Of a log without news, after which the status is asked for: a broken network can look like silence."""


_NOTES = re.compile(
    r"^(\d{4}-\d\d-\d\d [\d:,]+\tINFO job_manager\.py:|Running entrypoint for job )[^\n]*\n", re.MULTILINE
)


def without_notes_of_ray(write: Callable[[str], None]) -> Callable[[str], None]:
    """Leave out the two lines that Ray puts before a job's own; a piece of a log has whole lines."""

    def write_rest(text: str) -> None:
        if rest := _NOTES.sub("", text):
            write(rest)

    return write_rest


class LogWriter:
    """Hands on a log that is read again from its start after a break, each part once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._handed_on = self._position = 0

    def rewind(self) -> None:
        self._position = 0

    def add(self, text: str) -> None:
        new = text[max(0, self._handed_on - self._position) :]
        self._position += len(text)
        self._handed_on = max(self._handed_on, self._position)
        if new:
            self._write(new)


def hand_on(client: Any, id: str, writer: LogWriter, is_over: Callable[[], bool]) -> bool:
    """Hand on a job's log from its start until its stream ends.

    Args:
        client: Ray's own.
        is_over: whether the job has ended; asked when the log is silent.

    Returns:
        False if the stream broke before the log's end.
    """
    writer.rewind()
    return asyncio.run(_hand_on(client.tail_job_logs(id), writer, is_over))


async def _hand_on(stream: Any, writer: LogWriter, is_over: Callable[[], bool]) -> bool:
    piece: asyncio.Future[str] | None = None
    try:
        while True:
            piece = piece or asyncio.ensure_future(anext(stream))
            await asyncio.wait({piece}, timeout=_QUIET_S)
            if piece.done():
                try:
                    text = piece.result()
                except StopAsyncIteration:
                    return True
                except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError, ValueError):
                    return False
                piece = None
                writer.add(text)  # outside: a closed terminal is no broken stream
            elif await asyncio.to_thread(is_over):
                return False
    finally:
        if piece is not None:
            piece.cancel()
