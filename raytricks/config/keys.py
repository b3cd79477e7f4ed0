"""Dotted keys: `tricks.mixup.alpha` names one value of the configuration tree.

Files, overrides and messages use dotted keys; pydantic uses nested sections. This module maps
one to the other and reads off a field's type what a message or a value needs to know.
"""

from collections.abc import Iterator, Mapping
import os
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raytricks.config.schema import ExperimentConfig


def dotted_keys(model: type[BaseModel] = ExperimentConfig) -> dict[str, FieldInfo]:
    """Return every value's dotted key and its field, in the order of the schema."""
    keys: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        section = section_class(info)
        if section is None:
            keys[name] = info
        else:
            keys |= {f"{name}.{key}": value for key, value in dotted_keys(section).items()}
    return keys


def section_keys(model: type[BaseModel] = ExperimentConfig) -> dict[str, list[str]]:
    """Return every section's dotted name and the dotted keys of the values in it."""
    sections: dict[str, list[str]] = {}
    for key in dotted_keys(model):
        parts = key.split(".")
        for end in range(1, len(parts)):
            sections.setdefault(".".join(parts[:end]), []).append(key)
    return sections


def to_nested(values: Mapping[str, object]) -> dict[str, object]:
    """Return nested dicts for dotted keys: {"a.b": 1} becomes {"a": {"b": 1}}.

    Raises:
        ValueError: a key is both a value and a section.
    """
    tree: dict[str, object] = {}
    for key, value in values.items():
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            child = node.setdefault(section, {})
            if not isinstance(child, dict):
                raise ValueError(f"{key}: {section} already has a value, {child!r}")
            node = child
        if leaf in node:
            raise ValueError(f"{key} is set twice")
        node[leaf] = value
    return tree


def flatten(config: BaseModel) -> dict[str, object]:
    """Return dotted key -> value for every value of a configuration."""
    return dict(leaves(config))


def leaves(tree: Mapping[str, object] | BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted keys and values of nested dicts and sections.

    An empty dict is a value, and so is a dict that a section holds.
    """
    holds_sections = isinstance(tree, Mapping)
    for name, value in tree.items() if isinstance(tree, Mapping) else tree:
        key = f"{prefix}{name}"
        if isinstance(value, BaseModel) or (holds_sections and isinstance(value, Mapping) and value):
            yield from leaves(value, key + ".")
        else:
            yield key, value


def section_class(info: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, or None for a value."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def value_types(annotation: object) -> set[object]:
    """Return the alternatives of an annotation, without Annotated: `X | None` gives {X, NoneType}."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return value_types(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set().union(*(value_types(part) for part in get_args(annotation)))
    return {annotation}


def allows_none(info: FieldInfo) -> bool:
    """Return whether the field may be None."""
    return NoneType in value_types(info.annotation)


def holds_text(info: FieldInfo) -> bool:
    """Return whether the field takes free text and nothing else but None."""
    return value_types(info.annotation) - {NoneType} == {str}


def as_schema_type(info: FieldInfo, value: object) -> object:
    """Return a value as the strict schema wants it: lists as tuples, paths as text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list) and holds_tuple(info):
        return tuple(value)
    return value


def holds_tuple(info: FieldInfo) -> bool:
    """Return whether the field takes a tuple."""
    return any(get_origin(kind) is tuple for kind in value_types(info.annotation))


def choices(info: FieldInfo) -> tuple[object, ...]:
    """Return the allowed values of a Literal field, () for any other."""
    kinds = value_types(info.annotation)
    return tuple(value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind))
