"""Keep freed memory for the next step instead of giving it back to the system."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_MOST_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Have glibc serve large activations from its heap and never trim it.

    By default each large tensor is mapped, zeroed page by page and unmapped again at every step.
    Measured on a small ResNet at 28 px on a CPU: 6 to 20% more images/s.

    Returns:
        Whether the C library knows the setting (glibc does, others do not).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MOST_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
