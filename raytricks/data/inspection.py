"""Look at every image of a split once: its size, its colours, a hash of it, whether it can be read."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import hashlib
import os

import numpy as np

from raytricks.data.contents import ArrayContents, Contents
from raytricks.data.decode import DecodeSpec, decode_bytes, header_of
from raytricks.data.listing import ListedSplit
from raytricks.errors import DataError

_CHUNK = 4096  # images handed to the threads at once; bounds the memory
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Inspection:
    """What was seen, a row an image.

    Attributes:
        digests: (N, 16) uint8, equal for images of equal content.
        heights, widths, num_bytes: (N,) int64; 0 for an unreadable image.
        is_grayscale, is_readable: (N,) bool.
        errors: a line for each unreadable image.
    """

    digests: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    num_bytes: np.ndarray
    is_grayscale: np.ndarray
    is_readable: np.ndarray
    errors: tuple[str, ...]


_Seen = tuple[bytes, int, int, int, bool]  # digest, height, width, bytes, is_grayscale


def inspect_split(
    split: ListedSplit, *, decode: bool, workers: int | None = None, progress: Callable[[int], None] = lambda n: None
) -> Inspection:
    """Read every image of a split, in threads.

    Args:
        decode: also decode each, which alone finds damage behind the header.
        progress: called with how many more images were seen.
    """

    def attempt(index: int) -> _Seen | DataError:
        try:
            return _look_at(split.contents, index, decode)
        except DataError as error:
            return error

    seen: list[_Seen | DataError] = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(split), _CHUNK):
            indices = range(start, min(start + _CHUNK, len(split)))
            seen += pool.map(attempt, indices)
            progress(len(indices))
    rows = [(bytes(_DIGEST_BYTES), 0, 0, 0, False) if isinstance(row, DataError) else row for row in seen]
    digests, heights, widths, num_bytes, is_grayscale = zip(*rows, strict=True)
    return Inspection(
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST_BYTES),
        heights=np.array(heights),
        widths=np.array(widths),
        num_bytes=np.array(num_bytes),
        is_grayscale=np.array(is_grayscale),
        is_readable=np.array([not isinstance(row, DataError) for row in seen]),
        errors=tuple(str(row) for row in seen if isinstance(row, DataError)),
    )


def _look_at(contents: Contents, index: int, decode: bool) -> _Seen:
    if isinstance(contents, ArrayContents):  # as they are: to encode each would take longer than all the rest
        pixels = contents.pixels[index]
        return (
            _digest(repr(pixels.shape).encode() + pixels.tobytes()),
            *pixels.shape[1:],
            pixels.nbytes,
            len(pixels) == 1,
        )
    content, place = contents.read(index), contents.place(index)
    header = header_of(content, place)
    if decode:
        channels = 1 if header.is_grayscale else 3
        decode_bytes(content, DecodeSpec(min(header.height, header.width), square=False, channels=channels), place)
    return _digest(content), header.height, header.width, len(content), header.is_grayscale


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST_BYTES]
