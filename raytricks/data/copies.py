"""Files of equal bytes in two splits, which flatter the score, or in two classes, of which one is wrong."""

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


def conflict_note(train: Split) -> tuple[str, ...]:
    """Return a warning where one image is in two classes, byte for byte; reads as much as `copy_note`."""
    files = train.images
    if not isinstance(files, FileImages) or len(files.paths) > _MOST_FILES:
        return ()
    by_size: defaultdict[tuple[int, int, int], list[str]] = defaultdict(list)
    for key, path in _sized(files):
        by_size[key].append(path)
    labels = dict(zip(files.paths, train.labels.tolist(), strict=True))
    alike = [paths for paths in by_size.values() if len({labels[path] for path in paths}) > 1]
    by_digest: defaultdict[bytes, list[str]] = defaultdict(list)
    for path, digest in _digests(path for paths in alike for path in paths).items():
        if digest is not None:
            by_digest[digest].append(path)
    found = [paths for paths in by_digest.values() if len({labels[path] for path in paths}) > 1]
    if not found:
        return ()
    one = found[0][0]
    other = next(path for path in found[0] if labels[path] != labels[one])
    number, verb = ("one training image", "is") if len(found) == 1 else (f"{len(found):,} training images", "are")
    return (f"{WARNING}{number} {verb} in two classes ({one} = {other}): a label is wrong; correct it, or remove both",)


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
    digests = _digests(path for key, one in candidates for path in (one, *by_size[key]))
    trained = {digests[path]: path for key in dict(candidates) for path in by_size[key] if digests.get(path)}
    return [(path, trained[digest]) for _, path in candidates if (digest := digests.get(path)) in trained]


def _digests(paths: Iterable[str]) -> dict[str, bytes | None]:
    """Return the hashes of the first few thousand files; None of one that cannot be read."""
    chosen = list(dict.fromkeys(paths))[:_MOST_READ]
    with ThreadPoolExecutor() as pool:
        return dict(zip(chosen, pool.map(_digest, chosen), strict=True))


def _sized(images: FileImages) -> Iterable[tuple[tuple[int, int, int], str]]:
    for path, height, width in zip(images.paths, images.heights.tolist(), images.widths.tolist(), strict=True):
        with suppress(OSError):  # reading it will say so
            yield (Path(path).stat().st_size, height, width), path


def _digest(path: str) -> bytes | None:
    with suppress(OSError):
        return hashlib.sha256(Path(path).read_bytes()).digest()
    return None
