"""Sections whose fields come from the rows of parts: `tricks`, `logging`, and those where a name chooses one part."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from raytricks.parts.part import Kind, Part, Section, Setting
from raytricks.parts.registry import named, of_kind


def with_settings(base: type[Section], kind: Kind, rows: Iterable[Part]) -> type[Any]:
    """Return a section with the settings of every part of a kind, each under its name."""
    fields: dict[str, Any] = {}
    for row in of_kind(kind, rows):
        if isinstance(row.settings, Setting):
            described = Annotated[row.settings.annotation, Field(description=row.settings.doc)]
            fields[row.name] = (described, row.settings.default)
        elif row.settings is not None:
            fields[row.name] = (row.settings, row.settings())
    return _extended((base,), fields)


def with_choice(base: type[Section], kind: Kind, name: str, rows: Iterable[Part]) -> type[Any]:
    """Return a section whose `name` is one of a kind's parts, with the settings of the part named.

    Args:
        base: has the field `name` and what all parts of the kind have in common.
    """
    rows = tuple(rows)
    row = named(kind, name, rows)
    settings = row.settings if row is not None else None
    info = base.model_fields["name"]
    names = Literal[tuple(row.name for row in of_kind(kind, rows))]  # type: ignore[valid-type]
    fields = {
        "name": (Annotated[names, Field(description=info.description)], name if row is not None else info.default)
    }
    bases = (settings, base) if isinstance(settings, type) else (base,)
    return _extended(bases, fields, like=base)


def with_own(base: type[Section], field: str, row: Part) -> type[Any]:
    """Return a section in which a part of the user's own is named, with its settings beside the others.

    Args:
        field: that names it, such as `name` of the model.
    """
    info = base.model_fields[field]
    kinds: list[Any] = [Literal[row.name], info.annotation]  # type: ignore[valid-type]
    described = Annotated[kinds[0] | kinds[1], Field(description=info.description)]
    fields = {field: (described, info.default)}
    bases = (row.settings, base) if isinstance(row.settings, type) else (base,)
    section = _extended(bases, fields, like=base)
    section.part = row
    return section


def _extended(bases: tuple[type[Section], ...], fields: dict[str, Any], like: type[Section] | None = None) -> type[Any]:
    like = like or bases[-1]
    return create_model(like.__name__, __base__=bases, __module__=like.__module__, __doc__=like.__doc__, **fields)
