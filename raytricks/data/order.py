"""Which samples each optimizer step and each worker gets.

The order belongs to the global data set: a permutation from (seed, epoch), cut into global
batches. Workers only decide who computes which part of a batch, so the same images make up
step k on 1, 2 or 8 workers, and a resume in mid-epoch starts at step k.
"""

import numpy as np

_ORDER_STREAM = 1  # keeps this generator apart from the others made of the same seed


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation of range(num_images) in which an epoch visits the images."""
    return np.random.default_rng((seed, epoch, _ORDER_STREAM)).permutation(num_images)


def balanced_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return as many samples as there are images, equally many of each class, in random order.

    An image of a rare class comes several times an epoch, of a frequent one in some epochs only. Classes that cannot
    all have the same number take turns.

    Args:
        labels: (N,) int64.
    """
    rng = np.random.default_rng((seed, epoch, _ORDER_STREAM))
    counts = np.bincount(labels)
    classes = rng.permutation(np.flatnonzero(counts))
    members_of = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = []
    for place, label in enumerate(classes):
        start, stop = even_share(len(labels), place, len(classes))
        rounds = -(-(stop - start) // counts[label])
        repeated = np.concatenate([rng.permutation(members_of[label]) for _ in range(rounds)] or [members_of[label]])
        chosen.append(repeated[: stop - start])
    return rng.permutation(np.concatenate(chosen))


def even_share(total: int, part: int, num_parts: int) -> tuple[int, int]:
    """Return [start, stop) of one of `num_parts` contiguous parts that differ by at most one."""
    return total * part // num_parts, total * (part + 1) // num_parts


def micro_batches(start: int, stop: int, max_images: int | None) -> list[tuple[int, int]]:
    """Cut [start, stop) into the fewest near-equal pieces of at most `max_images`."""
    size = stop - start
    num_pieces = 1 if max_images is None else -(-size // max_images)
    pieces = (even_share(size, i, num_pieces) for i in range(num_pieces))
    return [(start + a, start + b) for a, b in pieces]


def with_left_neighbour(batch: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return batch[start:stop] preceded by the sample one place to its left, cyclically.

    Mixup pairs each sample with its left neighbour in the global batch, so a worker needs one
    image more than its share, whatever the number of workers.
    """
    return batch[np.arange(start - 1, stop) % len(batch)]
