"""Images that are trained on and scored: files of equal bytes in two splits, which flatter the score."""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
import hashlib
from pathlib import Path

from raytricks.data.splits import WARNING, FileImages, Split

_MOST_FILES = 50_000  # of both splits; more are left to `raytricks data info`, which reads them all
_MOST_READ = 4_000


def copy_note(train: Split, scored: Split) -> tuple[str, ...]:
    """Return a warning where images to score are among the training images, byte for byte.

    Only files of equal sizes are read, and of these the first few thousand, so that the start of a run stays short.
    """
    pairs = _copies(train, scored)
    if not pairs:
        return ()
    number, verb = ("one", "is") if len(pairs) == 1 else (f"{len(pairs):,}", "are")
    return (
        f"{WARNING}{number} of {len(scored):,} images of {scored.origin} {verb} in train too ({pairs[0][0]} = "
        f"{pairs[0][1]}): scores flatter; `raytricks data info` lists them",
    )


def _copies(train: Split, scored: Split) -> list[tuple[str, str]]:
    ours, theirs = train.images, scored.images
    if not isinstance(ours, FileImages) or not isinstance(theirs, FileImages):
        return []
    if len(ours.paths) + len(theirs.paths) > _MOST_FILES:
        return []
    by_size: defaultdict[tuple[int, int, int], list[str]] = defaultdict(list)
    for key, path in _sized(ours):
        by_size[key].append(path)
    candidates = [(key, path) for key, path in _sized(theirs) if key in by_size]
    wanted = dict.fromkeys(path for key, one in candidates for path in (one, *by_size[key]))
    paths = list(wanted)[:_MOST_READ]
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(paths, pool.map(_digest, paths), strict=True))
    trained = {digests[path]: path for key in dict(candidates) for path in by_size[key] if digests.get(path)}
    return [(path, trained[digest]) for _, path in candidates if (digest := digests.get(path)) in trained]


def _sized(images: FileImages) -> Iterable[tuple[tuple[int, int, int], str]]:
    for path, height, width in zip(images.paths, images.heights.tolist(), images.widths.tolist(), strict=True):
        with suppress(OSError):  # reading it will say so
            yield (Path(path).stat().st_size, height, width), path


def _digest(path: str) -> bytes | None:
    with suppress(OSError):
        return hashlib.sha256(Path(path).read_bytes()).digest()
    return None
