"""The first pass over a config: which parts does it name, and where is their code? The schema depends on it."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from raytricks.errors import ConfigError
from raytricks.parts.bring import absolute_spec, bring_callable, bring_row, is_spec
from raytricks.parts.part import CHOSEN_BY, Kind, Part

PARTS = "parts"
LISTS: dict[str, Kind] = {"metrics": "metric", "callbacks": "callback"}
"""Settings that list parts."""
_KIND_OF: dict[str, Kind] = {**{chooser: kind for kind, chooser in CHOSEN_BY.items()}, **LISTS}  # type: ignore[misc]


class Entry(NamedTuple):
    """A value of a config: who set it, and the directory that paths in it start from."""

    key: str
    value: object
    source: str
    base: Path


@dataclass(frozen=True)
class NamedParts:
    """What a config names.

    Attributes:
        chosen: dotted key of `CHOSEN_BY` -> name, absolute where it is code.
        rows: parts of the user's own.
        problems: a line for each that cannot be had.
    """

    chosen: dict[str, object]
    rows: tuple[Part, ...]
    problems: list[str]


def find_parts(entries: Iterable[Entry]) -> NamedParts:
    """Find the parts that a config names; a later entry of the same key replaces an earlier one. Imports them."""
    last = {entry.key: entry for entry in entries if entry.key in _KIND_OF or entry.key.startswith(f"{PARTS}.")}
    chosen: dict[str, object] = {}
    rows: dict[str, Part] = {}
    problems: list[str] = []
    for entry in last.values():
        kind = _KIND_OF.get(entry.key)
        value = absolute(entry.key, entry.value, entry.base)
        if entry.key in CHOSEN_BY.values():
            chosen[entry.key] = value
        for name, spec in _specs(entry.key, value):
            try:
                rows[f"{entry.key} {name}"] = bring_row(name, spec) if kind is None else bring_callable(kind, spec)
            except ConfigError as error:
                problems += [f"{entry.source}: {entry.key}: {line}" for line in error.problems]
    ordered = sorted(rows.values(), key=lambda row: row.kind)  # within a kind, as the config has them
    return NamedParts(chosen, tuple(ordered), problems)


def names_code(entries: Iterable[Entry]) -> list[str]:
    """Return the specs of a config, importing none of them."""
    relevant = (entry for entry in entries if entry.key in _KIND_OF or entry.key.startswith(f"{PARTS}."))
    return [spec for e in relevant for _, spec in _specs(e.key, absolute(e.key, e.value, e.base))]


def absolute(key: str, value: object, base: Path) -> object:
    """Return a value whose specs mean the same from any directory; other values as they are."""
    if isinstance(value, list | tuple) and key in LISTS:
        return type(value)(absolute(key, item, base) for item in value)
    is_named = key.startswith(f"{PARTS}.") or (key in _KIND_OF and _means_code(key, value))
    return absolute_spec(value, base) if is_named and isinstance(value, str) else value


def _specs(key: str, value: object) -> list[tuple[str, str]]:
    """Return the (name, spec) pairs of a setting; the name of what is named directly is its spec."""
    if key.startswith(f"{PARTS}."):
        return [(key.removeprefix(f"{PARTS}."), value)] if isinstance(value, str) else []
    values = value if isinstance(value, list | tuple) else [value]
    return [(item, item) for item in values if isinstance(item, str) and _means_code(key, item)]


def _means_code(key: str, value: object) -> bool:
    """A model's name with a prefix that is no module is a library's, mistyped: the models know what was meant."""
    if not isinstance(value, str) or not is_spec(value):
        return False
    place = value.rpartition(":")[0]
    return key != CHOSEN_BY["model"] or place.endswith(".py") or find_spec(place.partition(".")[0]) is not None
