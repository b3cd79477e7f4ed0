"""Every row that comes with raytricks, and how rows are found by kind and name."""

from collections.abc import Iterable, Sequence

from raytricks.parts import losses, metrics, models, optimizers, sources, trackers, tricks
from raytricks.parts.part import KINDS, Kind, Part

__all__ = ["BUILT_IN", "KINDS", "in_order", "library_of", "named", "of_kind"]

BUILT_IN: tuple[Part, ...] = (
    *tricks.ROWS,
    *optimizers.ROWS,
    *losses.ROWS,
    *models.ROWS,
    *metrics.ROWS,
    *sources.ROWS,
    *trackers.ROWS,
)


def of_kind(kind: Kind, rows: Iterable[Part] = BUILT_IN) -> tuple[Part, ...]:
    """Return the rows of a kind, in their order."""
    return tuple(row for row in rows if row.kind == kind)


def named(kind: Kind, name: object, rows: Iterable[Part] = BUILT_IN) -> Part | None:
    """Return the row of a kind and name, or of the library that a name such as `timm:resnet18` begins with."""
    of_name = (row for row in rows if row.kind == kind and (row.name == name or row.is_library_of(name)))
    return next(of_name, None)


def library_of(name: object) -> Part | None:
    """Return the row of the library of models that a name such as `timm:resnet18` begins with."""
    return next((row for row in of_kind("model") if row.is_library_of(name)), None)


def in_order(rows: Sequence[Part]) -> tuple[Part, ...]:
    """Return rows so that each comes after those that its `after` names, else in the order given.

    Raises:
        ValueError: they ask to come after one another.
    """
    waiting: list[Part] = list(rows)
    placed: list[Part] = []
    while waiting:
        names = {row.name for row in waiting}
        ready = next((row for row in waiting if not names & set(row.after) - {row.name}), None)
        if ready is None:
            raise ValueError(f"{', '.join(sorted(names))} ask to come after one another; leave one `after` out")
        waiting.remove(ready)
        placed.append(ready)
    return tuple(placed)
