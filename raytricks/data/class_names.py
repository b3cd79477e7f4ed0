"""The names of classes: cleaned, in one order, and which of them may be slips of one name."""

from collections.abc import Iterable, Sequence
import os
import re
import unicodedata

from raytricks.data.splits import WARNING

_NUMBER_RUNS = re.compile(r"([0-9]+)")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d"))
_SHOWN = 5


def clean_name(name: str) -> str:
    """Return a name in Unicode's NFC, without blanks around it and with single ones within."""
    return " ".join(unicodedata.normalize("NFC", readable(name)).translate(_INVISIBLE).split())


def readable(name: str) -> str:
    """Return a file's name as text that can be printed and saved, though it may be no UTF-8 on the disk."""
    return os.fsencode(name).decode("utf-8", "replace")


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts 2 before 10; names without digits are in the order of their characters."""
    parts = _NUMBER_RUNS.split(name)  # text and numbers take turns, so equal places hold equal types
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def in_class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in the order of their labels: by value where all are numbers, else by `natural_key`."""
    names = list(names)
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names, key=natural_key))


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of clean names that differ only in case, blanks, compatible characters, or as 1 and 1.0 do."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_bare(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _bare(name: str) -> str:
    bare = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold()) or name
    return str(float(name)) if _NUMBER.fullmatch(name) else bare


def look_alike_notes(place: object, names: Iterable[str]) -> tuple[str, ...]:
    """Return a line, where there are such, that names the classes which may be one."""
    groups = look_alikes(names)
    if not groups:
        return ()
    listed = some([" and ".join(map(repr, group)) for group in groups])
    text = f"{place}: classes that differ only in case or blanks: {listed}; if they are one, rename them"
    return (WARNING + text,)


def some(names: Sequence[str], count: int = _SHOWN) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
