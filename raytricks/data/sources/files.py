"""Images in files of their own, listed with their labels by folders or a table, and their headers."""

from collections.abc import Sequence
from dataclasses import dataclass
import re

import numpy as np

from raytricks.data.header_scan import read_headers
from raytricks.data.splits import FoundSplits, Split
from raytricks.errors import DataError


@dataclass(frozen=True)
class ListedFiles:
    """Image files with their labels.

    Attributes:
        labels: (N,) int64.
        names: what the source calls each: its path in the folder or table.
        groups: (N,) what each belongs to, by a column of the table; None: there is no such column.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    origin: str
    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FileListing:
    """The files of each split ("train", "val", "test")."""

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, ListedFiles]
    notes: tuple[str, ...]


def open_listing(listing: FileListing, group: str | None = None) -> FoundSplits:
    """Read each file's header; decodes nothing.

    Args:
        group: data.group.

    Raises:
        DataError: a file is no image, or the group of an image is not to be found in its name.
    """
    splits = {}
    for name, files in listing.splits.items():
        groups = files.groups if files.groups is not None or group is None else groups_in(files.names, group)
        splits[name] = Split(files.labels, read_headers(files.paths), files.origin, groups)
    notes = listing.notes
    return FoundSplits(listing.name, listing.class_names, splits["train"], splits.get("val"), splits.get("test"), notes)


def groups_in(names: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Return what a pattern finds in each name: its parentheses, or all of the match where it has none.

    Raises:
        DataError: the pattern is none, or is not found in some name.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"data.group {pattern!r} is neither a column nor a regular expression ({error})") from None
    groups = []
    for name in names:
        found = compiled.search(name)
        if found is None:
            raise DataError(
                f"data.group {pattern!r} is not found in {name!r}; write a regular expression that every path holds, "
                r"such as 'patient(\d+)', or a column of the table"
            )
        groups.append(" ".join(part or "" for part in found.groups()) if compiled.groups else found.group())
    return tuple(groups)
