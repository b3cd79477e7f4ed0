"""Settings that change in the course of a run: which may, and the config that they give.

The others are fixed when a run starts: the network, the length of the run, the shape of its
learning rate curve, the images, what each checkpoint must hold.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from raytricks.config.keys import dotted_keys, flatten, holds_tuple
from raytricks.config.problems import show_value, wrong_value
from raytricks.config.schema import Change, ExperimentConfig
from raytricks.config.schemas import key_of_another_part
from raytricks.errors import ConfigError
from raytricks.suggest import did_you_mean

CHANGES = "changes"
_FORM = "{epoch: 4, values: {recipe.base_lr: 0.3}}"
_OF_THE_SECTIONS = (
    "recipe.base_lr",
    "recipe.global_batch_size",
    "optimizer.weight_decay",
    "data.shift_pixels",
    "data.crop_scale",
    "data.crop_aspect",
    "data.horizontal_flip",
)
_FROM_DATA = ("data.shift_pixels",)
"""Null means "chosen from the data", which happens before the run starts."""


def changeable(schema: type[ExperimentConfig] = ExperimentConfig) -> tuple[str, ...]:
    """Return the dotted keys that may change; a star stands for every key of a section."""
    of_rows = (row.key(name) for row in schema.rows for name in row.changeable)
    known = dotted_keys(schema)
    return (*_OF_THE_SECTIONS, *(key for key in dict.fromkeys(of_rows) if key.endswith("*") or key in known))


def changeable_keys(schema: type[ExperimentConfig] = ExperimentConfig) -> list[str]:
    """Return every key that may change."""
    patterns = changeable(schema)
    return [key for key in dotted_keys(schema) if _is_one_of(key, patterns)]


def changed_config(config: ExperimentConfig, values: Mapping[str, Any]) -> ExperimentConfig:
    """Return the config with some settings changed, checked as a whole, and without `changes`.

    Args:
        values: dotted keys of `changeable_keys`; lists may stand for tuples.

    Raises:
        ConfigError: a key that may not change, or a value that is wrong for it or beside the others.
    """
    schema = type(config)
    fields = dotted_keys(schema)
    problems = [line for key, value in values.items() if (line := _refusal(schema, key, value))]
    if problems:
        raise ConfigError(problems)
    # sections that stay are passed as they are: their keys may hold dots
    tree: dict[str, Any] = dict(config) | {CHANGES: ()}
    for key, value in values.items():
        section, *path, name = key.split(".")
        if isinstance(tree[section], BaseModel):
            tree[section] = tree[section].model_dump()
        node = tree[section]
        for part in path:
            node = node[part]
        node[name] = tuple(value) if isinstance(value, list) and holds_tuple(fields[key]) else value
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(
            [_wrong_setting(schema, detail, values) for detail in error.errors(include_url=False)]
        ) from None


def change_problems(config: ExperimentConfig) -> list[str]:
    """Return a line for each thing that is wrong with the changes of an otherwise valid config."""
    problems: list[str] = []
    current, previous_epoch = config, 0
    for index, change in enumerate(config.changes):
        place = f"{CHANGES}[{index}]"
        if problem := _misplaced(change.epoch, previous_epoch, config.recipe.epochs):
            problems.append(f"{place}: {problem}")
        previous_epoch = change.epoch
        try:
            following = changed_config(current, change.values)
        except ConfigError as error:
            problems += [f"{place}: {line}" for line in error.problems]
            continue
        problems += [f"{place}: {line}" for line in _other_images(current, following)]
        current = following
    return problems


def wrong_change(error: ErrorDetails) -> str:
    """Return the line for what pydantic rejects about the form of the changes."""
    kind, got = error["type"], show_value(error["input"])
    place = CHANGES + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"][1:])
    if kind == "tuple_type":
        return f"{place}: must be a list of {_FORM}, got {got}"
    if kind in ("int_type", "greater_than_equal"):
        return wrong_value(place, Change.model_fields["epoch"], error, error["input"])
    if kind == "extra_forbidden":
        return f"{place}: unknown key; a change is {_FORM}"
    return f"{place.removesuffix('.values').removesuffix('.epoch')}: a change is {_FORM}, got {got}"


def _is_one_of(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _refusal(schema: type[ExperimentConfig], key: str, value: Any) -> str | None:
    these = ", ".join(changeable(schema))
    if key not in dotted_keys(schema):
        if problem := key_of_another_part(schema, key):
            return problem
        return f"unknown key {key}{did_you_mean(key, changeable_keys(schema))}; these can change: {these}"
    if not _is_one_of(key, changeable(schema)):
        return f"{key} cannot change in the course of a run; these can: {these}"
    if value is None and key in _FROM_DATA:
        return f"{key}: must be a value, got null; what is chosen from the data stays as it was at the start"
    return None


def _misplaced(epoch: int, previous_epoch: int, epochs: int) -> str | None:
    if epoch <= previous_epoch:
        return (
            f"epoch must be greater than that of the change before ({previous_epoch}), got {epoch}; put them in order"
        )
    if epoch >= epochs:
        return f"epoch must be less than recipe.epochs ({epochs}), got {epoch}; change earlier or train longer"
    return None


def _wrong_setting(schema: type[ExperimentConfig], error: ErrorDetails, values: Mapping[str, Any]) -> str:
    key = ".".join(part for part in error["loc"] if isinstance(part, str))
    fields = dotted_keys(schema)
    if key in fields:
        index = "".join(f"[{part}]" for part in error["loc"] if isinstance(part, int))
        return wrong_value(key + index, fields[key], error, values.get(key))
    message = str(error.get("ctx", {}).get("error", error["msg"]))
    return f"{key}: {message}" if key else message


def _other_images(before: ExperimentConfig, after: ExperimentConfig) -> list[str]:
    """Refuse other images where the teacher's logits of the images are kept."""
    distillation = after.tricks.distillation
    if distillation.teacher is None or distillation.cache_dir is None:
        return []
    image_keys = ("data.*", *(row.key("*") for row in after.rows if row.changes_images))
    image_keys += tuple(row.place for row in after.rows if row.changes_images)
    old, new = flatten(before), flatten(after)
    return [
        f"{key} cannot change while tricks.distillation.cache_dir keeps the teacher's logits of the images; leave one "
        "of them out"
        for key in new
        if _is_one_of(key, image_keys) and new[key] != old[key]
    ]
