"""Look at every image once: its size, its colours, a hash of it, whether it can be read, and which images are equal."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import hashlib

import numpy as np

from raytricks.data.contents import ArrayContents, Contents
from raytricks.data.decode import DecodeSpec, decode_bytes, header_of
from raytricks.data.image_formats import UnreadableImage
from raytricks.data.listing import ListedSplit, Listing
from raytricks.limits import usable_cpus

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

    def attempt(index: int) -> _Seen | UnreadableImage:
        try:
            return _look_at(split.contents, index, decode)
        except UnreadableImage as error:
            return error

    seen: list[_Seen | UnreadableImage] = []
    with ThreadPoolExecutor(workers or usable_cpus()) as pool:
        for start in range(0, len(split), _CHUNK):
            indices = range(start, min(start + _CHUNK, len(split)))
            seen += pool.map(attempt, indices)
            progress(len(indices))
    rows = [(bytes(_DIGEST_BYTES), 0, 0, 0, False) if isinstance(row, UnreadableImage) else row for row in seen]
    digests, heights, widths, num_bytes, is_grayscale = zip(*rows, strict=True)
    return Inspection(
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST_BYTES),
        heights=np.array(heights),
        widths=np.array(widths),
        num_bytes=np.array(num_bytes),
        is_grayscale=np.array(is_grayscale),
        is_readable=np.array([not isinstance(row, UnreadableImage) for row in seen]),
        errors=tuple(str(row) for row in seen if isinstance(row, UnreadableImage)),
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


_SHOWN = 20


@dataclass(frozen=True)
class Duplicates:
    """Equal images.

    Attributes:
        num_repeated: images that equal an earlier one, over all splits.
        between_splits: images of the second split that are in the first too, such as {"train, val": 3}.
        num_disagreeing: contents that have more than one label.
        examples: "NAME = NAME", up to 20; those with two labels first, then those in two splits.
    """

    num_repeated: int
    between_splits: dict[str, int]
    num_disagreeing: int
    examples: tuple[str, ...]


def find_duplicates(listing: Listing, inspections: dict[str, Inspection]) -> Duplicates:
    """Compare the hashes of all readable images of all splits."""
    names = list(listing.splits)
    readable = {name: np.flatnonzero(inspections[name].is_readable) for name in names}
    digests = np.concatenate([inspections[name].digests[readable[name]] for name in names])
    splits = np.repeat(np.arange(len(names)), [len(readable[name]) for name in names])
    indices = np.concatenate([readable[name] for name in names])
    labels = np.concatenate([listing.splits[name].labels[readable[name]] for name in names])
    keys = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}")[:, 0]
    _, group_of, counts = np.unique(keys, return_inverse=True, return_counts=True)
    rows = np.argsort(group_of, kind="stable")
    starts = np.cumsum(counts) - counts
    between: Counter[str] = Counter()
    examples: list[tuple[int, int, str]] = []
    num_disagreeing = 0
    for group in np.flatnonzero(counts > 1):
        members = rows[starts[group] : starts[group] + counts[group]]
        found_in = splits[members]
        for first in np.unique(found_in):
            for second in np.unique(found_in[found_in > first]):
                between[f"{names[first]}, {names[second]}"] += int((found_in == second).sum())
        disagrees = len(set(labels[members].tolist())) > 1
        num_disagreeing += disagrees
        other = _other(members, labels if disagrees else splits)
        described = [
            _describe(listing, names[splits[row]], int(indices[row]), with_label=disagrees)
            for row in (members[0], other)
        ]
        examples.append((not disagrees, len(set(found_in.tolist())) == 1, " = ".join(described)))
    shown = [text for _, _, text in sorted(examples, key=lambda example: example[:2])[:_SHOWN]]
    return Duplicates(int((counts - 1).sum()), dict(between), num_disagreeing, tuple(shown))


def _other(members: np.ndarray, values: np.ndarray) -> int:
    """Return the first member whose value differs from the first's, or else the second."""
    return next((row for row in members if values[row] != values[members[0]]), members[1])


def _describe(listing: Listing, split_name: str, index: int, *, with_label: bool) -> str:
    split = listing.splits[split_name]
    name = split.contents.name(index)
    prefix = "" if name.startswith(f"{split_name}/") else f"{split_name}: "
    return prefix + name + (f" ({listing.class_names[split.labels[index]]})" if with_label else "")
