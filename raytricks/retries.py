"""Faults of storage that pass by are waited out; all others are told at once."""

from collections.abc import Callable
import errno
import logging
import random
import re
import time
from typing import TypeVar

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
_LIMIT_S = 300.0
_FIRST_S, _LONGEST_S = 1.0, 30.0
_PASSING = frozenset(
    {
        *(errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EREMOTEIO, errno.ECONNRESET, errno.ECONNABORTED),
        *(errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ENETRESET),
    }
)
_PASSING_TEXT = re.compile(
    r"SLOW_?DOWN|SERVICE_?UNAVAILABLE|INTERNAL_?FAILURE|NETWORK_CONNECTION|REQUEST_TIMEOUT|TooManyRequests"
    r"|HTTP status (5\d\d|429|408)|stale file handle|timed? ?out|connection (was )?(reset|aborted)",
    re.IGNORECASE,
)
"""pyarrow's filesystems tell their faults apart by text only (pyarrow 26)."""


def is_passing(error: BaseException | None) -> bool:
    """Return whether a fault of storage is likely to be gone soon; a missing file or permission is not."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError | PermissionError | FileExistsError):
        return False
    return error.errno in _PASSING or _PASSING_TEXT.search(str(error)) is not None


def with_retries(
    act: Callable[[], _T],
    place: str,
    *,
    passes: Callable[[BaseException], bool] = is_passing,
    limit_s: float = _LIMIT_S,
    note: Callable[[str], None] = _LOG.warning,
) -> _T:
    """Return what `act` returns, tried again with growing pauses while its faults are such as pass by.

    Args:
        place: of the file, for the note.
        limit_s: after so many seconds the fault is raised as it is.
        note: given a line for each fault that is waited out.
    """
    give_up_s, pause_s = time.monotonic() + limit_s, _FIRST_S
    while True:
        try:
            return act()
        except Exception as error:
            if not passes(error) or time.monotonic() + pause_s > give_up_s:
                raise
            reason = " ".join(str(error).split())
            wait_s = pause_s * random.uniform(0.5, 1.0)  # many processes must not come back at the same time
            note(f"{place}: {reason}; trying again in {wait_s:.0f} s")
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_S)
