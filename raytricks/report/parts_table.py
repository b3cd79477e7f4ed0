"""Parts as tables: a line each for a terminal, and the Markdown that stands in the documentation."""

from collections.abc import Iterable, Sequence

from raytricks.config import ExperimentConfig, flatten
from raytricks.config.keys import dotted_keys
from raytricks.config.problems import show_value
from raytricks.config.schemas import schema_of_all
from raytricks.parts.part import CHOSEN_BY, Part

_HEADINGS = ("part", "formula", "config key (default)", "source", "gain there", "ours")


def part_lines(rows: Sequence[Part]) -> list[str]:
    """Return "kind  name  title  source  from" of each row, in columns."""
    table = [(row.kind, row.name, row.plain_title, row.source, row.origin) for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(4)] if table else []
    return ["  ".join((*map(str.ljust, line, widths), line[4])).rstrip() for line in table]


def markdown_table(rows: Iterable[Part]) -> str:
    """Return a table of parts, with formula, keys and defaults, source, the source's gain and our own measurement."""
    lines = [_HEADINGS, ("---",) * len(_HEADINGS)]
    lines += [(row.plain_title, row.formula or "-", _keys(row), row.source, row.gain, row.measured) for row in rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _keys(row: Part) -> str:
    """Return the keys of a part with their defaults: its switches, or what stands beside its name."""
    known = dotted_keys(schema_of_all())
    if row.kind in CHOSEN_BY:
        settings = row.settings.model_fields if isinstance(row.settings, type) else {}
        names = [f"`{row.key(name)}` ({show_value(info.default)})" for name, info in settings.items()]
        name = f"{row.name}NAME" if row.name.endswith(":") else row.name
        return ", ".join([f"`{CHOSEN_BY[row.kind]}={name}`", *names])
    values = flatten(ExperimentConfig())
    keys = [key for key in known if key == row.place or key.startswith(f"{row.place}.")]
    if row.settings is None:
        keys = list(row.keyed({**row.on, **row.dormant}))
    return ", ".join(f"`{key}` ({show_value(values[key])})" for key in keys) or f"`metrics: [{row.name}]`"
