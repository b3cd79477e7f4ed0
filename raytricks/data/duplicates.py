"""Find images of equal content, above all those that are in two splits or have two labels."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from raytricks.data.inspection import Inspection
from raytricks.data.listing import Listing

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
