"""Make the distributions of a search space, each checked through the setting that it is drawn for.

Every bound and every value is put into the configuration, so that the setting's own type, range
and rules accept or refuse it before anything starts. All that is wrong is reported at once.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from raytricks.config import problems as lines
from raytricks.config.keys import as_schema_type, choices, dotted_keys, holds_tuple, to_nested, value_types
from raytricks.config.schema import ExperimentConfig
from raytricks.config.schemas import with_values
from raytricks.config.search_space import KINDS, PARAMETERS, RANGES, AnyKind, QUniform, RandInt
from raytricks.config.space_entries import SPACE, SpaceEntry
from raytricks.errors import ConfigError
from raytricks.suggest import closest, did_you_mean


def read_space(
    schema: type[ExperimentConfig], entries: Mapping[str, SpaceEntry], values: Mapping[str, object]
) -> tuple[dict[str, AnyKind], list[str]]:
    """Return the distribution of each searched key, and the problems of those that have none.

    Args:
        entries: searched key -> what is said about it.
        values: dotted key -> value of all other settings that are not at their default.
    """
    training = {key: value for key, value in values.items() if not key.startswith("tune.")}
    is_valid = _is_valid(schema, training)
    space: dict[str, AnyKind] = {}
    problems: list[str] = []
    for key, entry in entries.items():
        reader = _Reader(schema, key, entry, training, is_valid)
        distribution = reader.read()
        problems += reader.problems
        if distribution is not None:
            space[key] = distribution
    return space, problems


class _Reader:
    """Reads what is said about one searched key."""

    def __init__(
        self,
        schema: type[ExperimentConfig],
        key: str,
        entry: SpaceEntry,
        training: dict[str, object],
        is_valid: bool,
    ) -> None:
        self.schema = schema
        self.key = key
        self.info = dotted_keys(schema)[key]
        self.given = dict(entry.values)
        self.entry = entry
        self.training = training
        self.is_valid = is_valid
        self.problems: list[str] = []

    def read(self) -> AnyKind | None:
        """Return the distribution, or None when there are problems."""
        kind = self._kind()
        if kind is None:
            return None
        self._check_names(kind)
        if misfit := _misfit(kind, self.key, self.info):
            self._report("kind", f"{SPACE}.{self.key}: {misfit}")
            return None
        checked = self._checked_values(kind)
        if set(checked) >= _required(kind):
            draft = kind.model_construct(**checked)
            for problem in draft.problems():
                self._report("kind", f"{SPACE}.{self.key}: {problem}")
        return None if self.problems else kind(**checked)

    def _kind(self) -> type[AnyKind] | None:
        label = f"{SPACE}.{self.key}"
        if "" in self.given:
            value = self.given.pop("")
            if isinstance(value, list | tuple):
                self.given = {"kind": "choice", "values": value}
            elif value != {}:
                remedy = f"; to set {self.key} itself, leave out {SPACE}"
                got = lines.show_value(value)
                self._report("", f"{label}: takes a list of values or {{kind: ...}}, got {got}{remedy}")
                return None
        name = self.given.pop("kind", None)
        if isinstance(name, str) and name in KINDS:
            return KINDS[name]
        allowed = ", ".join(KINDS)
        if name is None:
            self._report("kind", f"{label}: needs a kind, one of {allowed}")
        else:
            hint = did_you_mean(name, KINDS) if isinstance(name, str) else ""
            self._report("kind", f"{label}.kind: must be one of {allowed}, got {lines.show_value(name)}{hint}")
        return None

    def _check_names(self, kind: type[AnyKind]) -> None:
        """Report parameters that the kind does not have, and those that it needs."""
        allowed = [name for name in PARAMETERS if name in kind.model_fields and name != "kind"]
        missing = _required(kind) - set(self.given)
        for name in [name for name in self.given if name not in allowed]:
            self._report(name, lines.unknown_parameter(f"{SPACE}.{self.key}", _name(kind), name, allowed))
            missing -= set(closest(name, missing, limit=1))
            del self.given[name]
        for name in [name for name in allowed if name in missing]:
            self._report("kind", f"{SPACE}.{self.key}: {_name(kind)} needs {name}; give {_usage(kind)}")

    def _checked_values(self, kind: type[AnyKind]) -> dict[str, Any]:
        """Return the parameters that the searched setting accepts, coerced to its type."""
        checked: dict[str, Any] = {}
        for name, value in self.given.items():
            if name in ("values", "also"):
                checked |= self._checked_list(name, value)
                continue
            try:
                checked[name] = self._checked_step(value) if name == "q" else self._checked_bound(kind, name, value)
            except ConfigError as error:
                self._report(name, str(error))
        return checked

    def _checked_list(self, name: str, value: object) -> dict[str, Any]:
        label = f"{SPACE}.{self.key}.{name}"
        if not isinstance(value, list | tuple):
            got = lines.show_value(value)
            self._report(name, f"{label}: must be a list, got {got}; write [{got}]")
            return {}
        found = []
        for index, item in enumerate(value):
            try:
                found.append(self._accepted(f"{label}[{index}]", item))
            except ConfigError as error:
                self._report(name, str(error))
        return {name: tuple(found)} if len(found) == len(value) else {}

    def _checked_bound(self, kind: type[AnyKind], name: str, value: object) -> int | float:
        label = f"{SPACE}.{self.key}.{name}"
        accepted = self._accepted(label, value)
        if kind is RandInt and type(value) is not int:
            raise ConfigError(f"{label}: must be a whole number, got {lines.show_value(value)}")
        if not isinstance(accepted, int | float):
            raise ConfigError(f"{label}: must be a number, got {lines.show_value(value)}")
        return int(accepted) if kind is RandInt else accepted

    def _checked_step(self, value: object) -> int | float:
        """A step is no value of the setting, but has its type."""
        is_whole = float not in value_types(self.info.annotation)
        allowed = (int,) if is_whole else (int, float)
        if not isinstance(value, allowed) or isinstance(value, bool) or value - value != 0:
            rule = "a whole number" if is_whole else "a number"
            raise ConfigError(f"{SPACE}.{self.key}.q: must be {rule}, got {lines.show_value(value)}")
        return value if is_whole else float(value)

    def _accepted(self, label: str, value: object) -> object:
        """Return a value as the configuration holds it once it is set there.

        Raises:
            ConfigError: the setting, or a rule between it and others, refuses the value.
        """
        value = as_schema_type(self.info, value)
        schema, values = with_values(self.schema, self.training, {self.key: value})
        try:
            config = schema.model_validate(to_nested(values))
        except ValidationError as error:
            details = error.errors(include_url=False)
        else:
            node: Any = config
            for part in self.key.split("."):
                node = getattr(node, part)
            return node
        for detail in details:
            if ".".join(part for part in detail["loc"] if isinstance(part, str)) == self.key:
                index = "".join(f"[{part}]" for part in detail["loc"] if isinstance(part, int))
                raise ConfigError(lines.wrong_value(label + index, self.info, detail, value))
        if self.is_valid:  # else the rules are broken without this value too, and reported for the settings
            message = str(details[0].get("ctx", {}).get("error", details[0]["msg"]))
            raise ConfigError(f"{label}: {message}")
        return value

    def _report(self, parameter: str, line: str) -> None:
        self.problems.append(f"{self.entry.sources.get(parameter, self.entry.source)}: {line}")


def _is_valid(schema: type[ExperimentConfig], values: dict[str, object]) -> bool:
    try:
        schema.model_validate(to_nested(values))
    except ValidationError:
        return False
    return True


def _name(kind: type[AnyKind]) -> str:
    return kind.model_fields["kind"].default


def _required(kind: type[AnyKind]) -> set[str]:
    return {name for name, info in kind.model_fields.items() if info.is_required()}


def _usage(kind: type[AnyKind]) -> str:
    required = _required(kind)
    parameters = [f"{name}: ..." for name in PARAMETERS if name in required]
    return f"{{kind: {_name(kind)}, {', '.join(parameters)}}}"


def _misfit(kind: type[AnyKind], key: str, info: FieldInfo) -> str | None:
    """Return why a setting of this type cannot be drawn from this kind."""
    types = value_types(info.annotation)
    if kind not in RANGES or float in types or (int in types and kind in (QUniform, RandInt)):
        return None
    if int in types:
        return f"{_name(kind)} draws fractions, {key} takes whole numbers; say randint, quniform or choice"
    if choices(info):
        taken = f"one of {', '.join(map(str, choices(info)))}"
    else:
        taken = "true or false" if bool in types else "a list" if holds_tuple(info) else "text"
    return f"{_name(kind)} draws numbers, {key} takes {taken}; say choice"
