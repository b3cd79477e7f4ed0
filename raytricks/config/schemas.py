"""The schema of one config: which settings there are depends on the parts that it names.

`ExperimentConfig` is the schema of the default choices. Another optimizer, or parts of the user's own, make another
schema, a subclass; everything that reads keys or validates takes it from the config, or from here.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from raytricks.config.keys import dotted_keys, leaves
from raytricks.config.named_parts import Entry, find_parts
from raytricks.config.part_sections import with_choice, with_own, with_settings
from raytricks.config.schema import (
    DataConfig,
    ExperimentConfig,
    LoggingConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TricksConfig,
)
from raytricks.errors import ConfigError
from raytricks.parts.bring import files_of, given_files, require_versions, versions_of
from raytricks.parts.part import CHOSEN_BY, SECTIONS, Kind, Part
from raytricks.parts.registry import BUILT_IN, named, of_kind

_CHOSEN: dict[Kind, type[Any]] = {"optimizer": OptimizerConfig, "loss": LossConfig}
_ALL: dict[Kind, type[Any]] = {"trick": TricksConfig, "tracker": LoggingConfig}
"""Sections that have the settings of every part of a kind, each under its name."""
_OWN: dict[Kind, tuple[str, type[Any]]] = {"model": ("name", ModelConfig), "source": ("source", DataConfig)}
"""Sections that have settings of their own beside those of a part: which field names the part."""


def schema_for(chosen: Mapping[str, object] = {}, brought: Iterable[Part] = ()) -> type[ExperimentConfig]:  # noqa: B006
    """Return the schema of a config that makes these choices.

    Args:
        chosen: dotted key of `CHOSEN_BY` -> name; one that is not known leaves the default's settings, and is then
            refused by the schema.
        brought: rows of the user's own.
    """
    brought = tuple(brought)
    names = []
    for kind, section in _CHOSEN.items():
        name = chosen.get(CHOSEN_BY[kind], section.model_fields["name"].default)
        is_known = isinstance(name, str) and named(kind, name, (*BUILT_IN, *brought)) is not None
        names.append(name if is_known else section.model_fields["name"].default)
    own = tuple(named(kind, chosen.get(CHOSEN_BY[kind]), brought) for kind in _OWN)
    return _schema(tuple(names), own, brought)


@lru_cache(maxsize=256)
def _schema(names: tuple[str, ...], own: tuple[Part | None, ...], brought: tuple[Part, ...]) -> type[ExperimentConfig]:
    rows = (*BUILT_IN, *brought)
    changed: dict[str, Any] = {}
    for (kind, section), name in zip(_CHOSEN.items(), names, strict=True):
        if name != section.model_fields["name"].default or of_kind(kind, brought):
            changed[kind] = with_choice(_base_of(section), kind, name, rows)
    for (kind, (field, section)), row in zip(_OWN.items(), own, strict=True):
        if row is not None:
            changed[SECTIONS[kind]] = with_own(section, field, row)
    for kind, section in _ALL.items():
        if of_kind(kind, brought):
            changed[SECTIONS[kind]] = with_settings(section, kind, brought)
    if not changed and not brought:
        return ExperimentConfig
    fields: dict[str, Any] = {name: (section, _default_of(section)) for name, section in changed.items()}
    schema = create_model(
        "ExperimentConfig", __base__=ExperimentConfig, __module__=ExperimentConfig.__module__, **fields
    )
    schema.rows = rows
    schema.__reduce__ = _reduce  # pickle would look for the class by its name, and find another
    return schema


def _default_of(section: type[Any]) -> Any:
    """Return a section at its defaults; ... where a part of the user's own must be told something."""
    try:
        return section()
    except ValidationError:
        return ...


def _reduce(self: ExperimentConfig) -> tuple[Any, ...]:
    """Travel as plain values and the content of files: another process runs the bytes that this one has hashed."""
    return config_sent, (self.model_dump(mode="json"), files_of(self.brought), versions_of(self.brought))


def config_sent(
    tree: Mapping[str, Any], files: Mapping[str, bytes], versions: Mapping[str, str | None]
) -> ExperimentConfig:
    """Return the config that another process has sent, with the code that it has.

    Args:
        tree: nested values, valid there.
        files: contents of the files of the user's own parts, by path; these run, not what lies here.
        versions: of the packages that parts are from, by spec.

    Raises:
        ClusterError: a package has another version here.
    """
    require_versions(versions)
    with given_files(files):
        return config_of(tree)


def with_values(
    schema: type[ExperimentConfig], own: Mapping[str, object], values: Mapping[str, object]
) -> tuple[type[ExperimentConfig], dict[str, object]]:
    """Return settings with some of them replaced, and their schema.

    Args:
        schema: of `own`, dotted keys and values.
        values: may choose another part. The settings of the one it replaces are then left out, and those that were
            at its default are at the other's.
    """
    merged = {**own, **values}
    other = schema_for({key: merged[key] for key in CHOSEN_BY.values() if key in merged}, _brought(schema))
    before, after = dotted_keys(schema), dotted_keys(other)
    gone = before.keys() - after.keys()
    for key in before.keys() & after.keys() & own.keys() - values.keys():
        if own[key] == before[key].default != after[key].default:
            gone.add(key)
    return other, {key: value for key, value in merged.items() if key not in gone}


def _brought(schema: type[ExperimentConfig]) -> tuple[Part, ...]:
    return schema.rows[len(BUILT_IN) :]


def schema_of_all() -> type[ExperimentConfig]:
    """Return a schema that has the settings of every part at once, for editors; no config is validated by it."""
    fields: dict[str, Any] = {}
    for kind, section in _CHOSEN.items():
        settings = [row.settings for row in of_kind(kind) if isinstance(row.settings, type)]
        of_rows: dict[str, Any] = {}
        for model in settings:
            of_rows |= {name: (info.annotation, info) for name, info in model.model_fields.items()}
        merged = create_model(section.__name__, __base__=section, __doc__=section.__doc__, **of_rows)
        fields[kind] = (merged, merged())
    return create_model("ExperimentConfig", __base__=ExperimentConfig, __doc__=ExperimentConfig.__doc__, **fields)


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def key_of_another_part(schema: type[ExperimentConfig], key: str, values: Mapping[str, object] = {}) -> str | None:  # noqa: B006
    """Say that a setting belongs to a part that is not the one chosen, such as `optimizer.betas` beside sgd.

    Args:
        values: dotted keys; the choice of the schema stands for one that is not among them.
    """
    section, _, name = key.partition(".")
    for kind, chooser in CHOSEN_BY.items():
        rows = of_kind(kind, schema.rows) if chooser.startswith(f"{section}.") else ()
        owners = [row.name for row in rows if isinstance(row.settings, type) and name in row.settings.model_fields]
        if owners:
            chosen = values.get(chooser, dotted_keys(schema)[chooser].default)
            return (
                f"{key} is a setting of {listed(owners)}, {chooser} is {chosen}; leave it out or set "
                f"{chooser}={owners[0]}"
            )
    return None


def _base_of(section: type[Any]) -> type[Any]:
    """Return what a section was before it got the settings of its default part."""
    return section.__bases__[-1]


def config_of(tree: Mapping[str, Any]) -> ExperimentConfig:
    """Return the config of nested values that were valid before, such as those of a config that was dumped.

    Parts of the user's own are found again where it says.

    Raises:
        ConfigError: they are not there.
    """
    found = find_parts(Entry(key, value, "config", Path()) for key, value in leaves(tree))
    if found.problems:
        raise ConfigError(found.problems)
    return schema_for(found.chosen, found.rows).model_validate_json(json.dumps(tree))
