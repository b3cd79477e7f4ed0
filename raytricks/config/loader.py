"""Build the configuration of a run from defaults, one YAML file and overrides.

A value set later wins: schema < `defaults` (a preset chosen from the data) < file < overrides.
Every key remembers who set it, and all that is wrong is reported at once, one line each.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
import re
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from raytricks.config import problems as lines
from raytricks.config.changes import CHANGES, change_problems, wrong_change
from raytricks.config.keys import (
    as_schema_type,
    choices,
    dotted_keys,
    flatten,
    holds_text,
    leaves,
    section_keys,
    to_nested,
)
from raytricks.config.named_parts import PARTS, Entry, NamedParts, absolute, find_parts, names_code
from raytricks.config.run_code import is_of_run, require_trusted
from raytricks.config.schema import ExperimentConfig
from raytricks.config.schemas import key_of_another_part, schema_for, schema_of_all
from raytricks.config.space_entries import SPACE, SpaceEntries
from raytricks.config.space_values import read_space
from raytricks.config.yaml_file import NULLS, parse_scalar, read_yaml
from raytricks.errors import ConfigError
from raytricks.parts.bring import given_files

__all__ = ["LoadedConfig", "dotted_keys", "flatten", "json_schema", "load_config", "to_nested"]

V = TypeVar("V")
DEFAULT = "default"
COMMAND_LINE = "command line"
ARGUMENTS = "overrides"
"""Source of values given as a mapping, from Python."""


@dataclass(frozen=True)
class LoadedConfig:
    """A valid configuration and where each of its values comes from.

    Args:
        config: the configuration.
        sources: dotted key of every value -> `default`, `configs/x.yaml:14`, `command line`,
            `overrides` (a Python mapping) or the label given with `defaults`. Each searched key has
            its own, under `tune.space.KEY`; `tune.space` has all of theirs.
    """

    config: ExperimentConfig
    sources: dict[str, str]


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, object] = (),
    defaults: Mapping[str, object] | None = None,
    defaults_source: str = DEFAULT,
    accept_changed: Collection[str] = (),
    *,
    of_run: bool = False,
) -> LoadedConfig:
    """Load and check a configuration.

    Args:
        path: YAML file of nested or dotted keys; None for none.
        overrides: `recipe.epochs=3` strings, or a mapping of dotted or nested keys.
        defaults: values of lower priority than the file; dotted or nested keys.
        defaults_source: what `sources` and messages call them.
        accept_changed: of a run's config, names of parts of the user's own whose code may have changed since.
        of_run: the file was found in a run or study, not named by the user: its code must be trusted, whatever lies
            beside it.

    Raises:
        ConfigError: every problem of the file and the overrides, one line each.
    """
    problems: list[str] = []
    content = None if path is None else read_yaml(path, problems)
    if isinstance(overrides, str):
        overrides = [overrides]
    values = {} if content is None else content.values
    lines_of = {} if content is None else content.lines
    named = _named_parts(path, defaults or {}, values, lines_of, overrides, accept_changed, of_run=of_run)
    draft = _Draft(schema_for(named.chosen, named.rows), [*problems, *named.problems], path)
    draft.add_mapping(defaults or {}, defaults_source)
    if content is not None:
        draft.add((key, value, f"{path}:{content.lines[key]}") for key, value in values.items())
    if isinstance(overrides, Mapping):
        draft.add_mapping(overrides, ARGUMENTS)
    else:
        draft.add_arguments(overrides)
    config = draft.validate()
    sources = dict.fromkeys(draft.fields, DEFAULT) | draft.sources
    return LoadedConfig(config, sources)


def _named_parts(
    path: str | Path | None,
    defaults: Mapping[str, object],
    content: Mapping[str, object],
    lines: Mapping[str, int],
    overrides: Sequence[str] | Mapping[str, object],
    accept_changed: Collection[str],
    *,
    of_run: bool,
) -> NamedParts:
    """Find which parts are named, by the layer that counts, and import those of the user's own.

    Raises:
        ConfigError: the file is a run's, and names code that this user has not trusted.
    """
    here = Path.cwd()
    is_mapping = isinstance(overrides, Mapping)
    given = leaves(overrides) if is_mapping else _argument_leaves(overrides)
    of_file = [Entry(key, value, f"{path}:{lines[key]}", Path(path or ".").parent) for key, value in content.items()]
    looked_at: dict[str, bytes] = {}
    if path is not None and (of_run or is_of_run(Path(path))) and (specs := names_code(of_file)):
        looked_at = require_trusted(Path(path), specs, accept_changed)
    with given_files(looked_at):
        return find_parts(
            [
                *(Entry(key, value, DEFAULT, here) for key, value in leaves(defaults)),
                *of_file,
                *(Entry(key, value, ARGUMENTS if is_mapping else COMMAND_LINE, here) for key, value in given),
            ]
        )


def _argument_leaves(arguments: Iterable[str]) -> Iterator[tuple[str, object]]:
    """Yield what `key=value` strings set, sections such as `optimizer={name: lamb}` too; wrong ones are left out."""
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if equals:
            with suppress(ConfigError):  # reported where the value is set
                yield from leaves({key.strip(): parse_scalar(text)})


def json_schema() -> dict[str, object]:
    """Return the JSON schema of a config file, for editors and other programs; it has every part's settings."""
    schema = schema_of_all().model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _Draft:
    """Values on their way to a configuration, and the problems found so far."""

    def __init__(self, schema: type[ExperimentConfig], problems: list[str], path: str | Path | None) -> None:
        self.schema, self.path = schema, path
        self.fields = dotted_keys(schema)
        self.sections = section_keys(schema)
        self.values: dict[str, object] = {}
        self.sources: dict[str, str] = {}
        self.space = SpaceEntries(schema)
        self.parts: dict[str, object] = {}
        self.problems = problems

    def add(self, entries: Iterable[tuple[str, object, str]]) -> None:
        """Set one layer's dotted keys; each entry is key, value and source. Wrong keys become problems."""
        reported: set[str] = set()
        space: list[tuple[str, object, str]] = []
        for key, given, source in entries:
            is_in_file = self.path is not None and source.startswith(f"{self.path}:")
            value = absolute(key, given, Path(self.path).parent if self.path and is_in_file else Path.cwd())
            if key == SPACE or key.startswith(f"{SPACE}."):
                space.append((key, value, source))
                continue
            if key.startswith(f"{PARTS}."):
                self.parts[key.removeprefix(f"{PARTS}.")], self.sources[key] = value, source
                continue
            if key == PARTS and (value is None or value == {}):
                continue
            problem = self._key_problem(key, value)
            if problem is None and key in self.fields:
                self.values[key], self.sources[key] = as_schema_type(self.fields[key], value), source
            elif problem and problem not in reported:  # several keys below one value: say it once
                reported.add(problem)
                self.problems.append(f"{source}: {problem}")
        self.problems += self.space.add_layer(space)

    def add_mapping(self, values: Mapping[str, object], source: str) -> None:
        """Set dotted or nested keys that all have one source."""
        self.add((key, value, source) for key, value in self._once(leaves(values), source))

    def add_arguments(self, arguments: Iterable[str]) -> None:
        """Set `key=value` strings from the command line."""
        pairs = self._once(self._split(arguments), COMMAND_LINE)
        entries: list[tuple[str, object]] = []
        for key, text in pairs:
            try:
                value = self._parsed(key, text)
            except ConfigError as error:
                self.problems.append(f"{COMMAND_LINE}: {key}: {error}")
                continue
            entries += leaves({key: value})
        self.add((key, value, COMMAND_LINE) for key, value in self._once(entries, COMMAND_LINE))

    def validate(self) -> ExperimentConfig:
        """Return the configuration, or raise ConfigError with all problems."""
        usable = {key: value for key, value in self.values.items() if not self._wrong_type_of_choice(key)}
        usable |= self._search_space(usable)
        if self.parts:
            usable[PARTS] = self.parts
            self.sources[PARTS] = " and ".join(dict.fromkeys(self.sources[f"{PARTS}.{name}"] for name in self.parts))
        try:
            config = self.schema.model_validate(to_nested(usable))
        except ValidationError as error:
            self.problems += [self._line(detail) for detail in error.errors(include_url=False)]
        else:
            self.problems += [f"{self.sources[CHANGES]}: {line}" for line in change_problems(config)]
            if not self.problems:
                return config
        raise ConfigError(self.problems)

    def _search_space(self, usable: dict[str, object]) -> dict[str, object]:
        """Return the search space as a value, without the settings whose distributions are wrong."""
        space, problems = read_space(self.schema, self.space.entries, usable)
        self.problems += problems
        sources = {f"{SPACE}.{key}": self.space.entries[key].source for key in space}
        if space:
            self.sources |= sources | {SPACE: " and ".join(dict.fromkeys(sources.values()))}
        return {SPACE: space} if space else {}

    def _key_problem(self, key: str, value: object) -> str | None:
        if key in self.fields:
            return lines.section_for_value(key) if isinstance(value, Mapping) else None
        if key in self.sections:  # a section whose keys are all commented out is empty, not wrong
            is_empty = value is None or value == {}
            return None if is_empty else lines.value_for_section(key, self.sections[key], value)
        parent = key
        while parent := parent.rpartition(".")[0]:
            if parent in self.fields:
                return lines.section_for_value(parent)
        return key_of_another_part(self.schema, key, self.values) or lines.unknown_key(key, self.fields)

    def _once(self, pairs: Iterable[tuple[str, V]], source: str) -> list[tuple[str, V]]:
        """Return the pairs whose key is new; the others are problems."""
        found: dict[str, V] = {}
        for key, value in pairs:
            if key in found:
                first, second = lines.show_value(found[key]), lines.show_value(value)
                self.problems.append(f"{source}: {key} is set twice, to {first} and {second}")
            else:
                found[key] = value
        return list(found.items())

    def _split(self, arguments: Iterable[str]) -> Iterable[tuple[str, str]]:
        for argument in arguments:
            key, equals, text = argument.partition("=")
            key = key.strip()
            if equals and key:
                yield key, text
            elif key in self.fields:
                self.problems.append(f"{COMMAND_LINE}: {key} needs a value; write {key}=VALUE")
            else:
                got = lines.show_value(argument)
                self.problems.append(f"{COMMAND_LINE}: an override is key=value, got {got}")

    def _parsed(self, key: str, text: str) -> object:
        """Return an override's value. Free text is taken as typed: a shell eats its quotes."""
        if key not in self.fields or not holds_text(self.fields[key]):
            return parse_scalar(text)
        text = text.strip()
        if text in NULLS:
            return None
        is_quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
        return parse_scalar(text) if is_quoted else text

    def _wrong_type_of_choice(self, key: str) -> bool:
        """Report True or 3.0 for the choice 1 or 3: pydantic 2.14 takes what compares equal."""
        value, allowed = self.values[key], choices(self.fields[key])
        if any(value == choice for choice in allowed) and type(value) not in map(type, allowed):
            line = lines.wrong_choice(key, self.fields[key], value)
            self.problems.append(f"{self.sources[key]}: {line}")
            return True
        return False

    def _line(self, error: ErrorDetails) -> str:
        """Return the line for one of pydantic's errors."""
        location = error["loc"]
        key = ".".join(part for part in location if isinstance(part, str))
        if location[:1] == (CHANGES,):
            return f"{self.sources[CHANGES]}: {wrong_change(error)}"
        if key in self.fields:
            index = "".join(f"[{part}]" for part in location if isinstance(part, int))
            line = lines.wrong_value(key + index, self.fields[key], error, self.values.get(key))
            return f"{self.sources.get(key, DEFAULT)}: {line}"
        message = str(error.get("ctx", {}).get("error", error["msg"]))
        return ": ".join(part for part in (self._places(key, message), key, message) if part)

    def _places(self, section: str, message: str) -> str:
        """Return who set the values of `section` that a rule between several values names."""
        prefix = f"{section}." if section else ""
        given = [key for key in self.sources if key.startswith(prefix)]
        named = [key for key in given if _names(message, key) or _names(message, key[len(prefix) :])]
        return " and ".join(dict.fromkeys(self.sources[key] for key in named or given))


def _names(message: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w])", message) is not None
