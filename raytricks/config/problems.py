"""Turn what is wrong with a value into one line: the key, the rule, what was got, the remedy.

Only the text after the place (`configs/x.yaml:14: `) is made here.
"""

from collections.abc import Iterable, Mapping
import re

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from raytricks.config.keys import allows_none, choices, holds_text
from raytricks.config.yaml_file import BOOLEANS
from raytricks.suggest import did_you_mean

SYNONYMS = {
    "arch": "model.name",
    "architecture": "model.name",
    "dataset": "data.source",
    "data_dir": "data.path",
    "learning_rate": "recipe.base_lr",
    "num_workers": "workers",
    "schedule": "tricks.decay.kind",
    "scheduler": "tricks.decay.kind",
}
"""What other trainers call a key, where the two names do not look alike."""

KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text",
    "tuple_type": "a list",
    "list_type": "a list",
}
"""Pydantic's error types that mean: this is another kind of value."""

BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}
_IN_URI = re.compile(
    r"(://)[^\s'\"]*(@)|(?<=[?&])((?:user|password|passwd|token|secret|\w*key)=)[^&'\"]*", re.IGNORECASE
)
"""Credentials in a URI."""
YES_NO = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the line for a key that the schema does not have."""
    synonym = SYNONYMS.get(key.rpartition(".")[2].lower().replace("-", "_"))
    hint = f"; did you mean {synonym}?" if synonym else did_you_mean(key, known)
    return f"unknown key {key if key.isprintable() and key else repr(key)}{hint}"


def value_for_section(section: str, keys: list[str], value: object) -> str:
    """Return the line for a value where a section is expected."""
    shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
    return f"{section} is a section, got {show_value(value)}; set {shown}"


def section_for_value(key: str) -> str:
    """Return the line for keys below a key that takes a value."""
    return f"{key}: takes one value, not a section"


def unknown_parameter(key: str, kind: str, name: str, allowed: list[str]) -> str:
    """Return the line for a parameter that a kind of distribution does not have."""
    shown = name if name.isprintable() and name else repr(name)
    return f"{key}: {kind} has no {shown}, only {', '.join(allowed)}{did_you_mean(name, allowed)}"


def wrong_choice(key: str, info: FieldInfo, value: object) -> str:
    """Return the line for a value that is none of a field's choices."""
    allowed = [str(choice) for choice in choices(info)]
    hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
    or_null = " or null" if allows_none(info) else ""
    return f"{key}: must be one of {', '.join(allowed)}{or_null}, got {show_value(value)}{hint}"


def wrong_value(key: str, info: FieldInfo, error: ErrorDetails, value: object) -> str:
    """Return the line for a value that pydantic rejected.

    Args:
        key: dotted key, with an index if one item of a list is wrong.
        info: the key's field.
        error: pydantic's description.
        value: what the user gave for the whole key.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return wrong_choice(key, info, error["input"])
    if kind in ("missing", "too_long", "too_short"):
        whole = key.rpartition("[")[0] if kind == "missing" else key  # a missing item has the index of its place
        return f"{whole}: {_length_rule(kind, error, context)}, got {show_value(value)}"
    rule = _rule(kind, error, context)
    if kind in KINDS and kind != "finite_number" and allows_none(info):
        rule += " or null"
    return f"{key}: {rule}, got {show_value(error['input'])}{_remedy(kind, error['input'], info)}"


def show_value(value: object) -> str:
    """Return a value as the user may have written it, at most 80 characters; credentials in a URI are left out."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        text = f"[{', '.join(show_value(item) for item in value)}]"
    elif isinstance(value, Mapping):
        text = f"{{{', '.join(f'{key}: {show_value(item)}' for key, item in value.items())}}}"
    else:
        text = _IN_URI.sub(lambda found: f"{found[1] or found[3]}***{found[2] or ''}", repr(value))
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 80 else text[:77] + "..."


def _rule(kind: str, error: ErrorDetails, context: dict) -> str:
    if kind in KINDS:
        return f"must be {KINDS[kind]}"
    if kind in BOUNDS:
        sign, name = BOUNDS[kind]
        bound = context[name]
        return f"must be {sign} {int(bound) if bound == int(bound) else bound}"
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    if kind == "value_error":
        return str(context["error"])
    message = error["msg"].replace("Input should", "must", 1)
    return message[0].lower() + message[1:]


def _length_rule(kind: str, error: ErrorDetails, context: dict) -> str:
    if kind == "missing":  # of a tuple: the first item that is not there
        return f"needs at least {int(error['loc'][-1]) + 1} values"
    return f"takes at most {context['max_length']} values" if kind == "too_long" else error["msg"].lower()


def _remedy(kind: str, value: object, info: FieldInfo) -> str:
    """Return `; write ...` where what was meant is evident."""
    if isinstance(value, str):
        written = value.strip()
        if allows_none(info) and written.lower() == "none":
            return "; write null"
        if kind == "bool_type":
            meant = YES_NO.get(written.lower(), written.lower())
            return f"; write {meant}" if meant in BOOLEANS else ""
        if kind in ("int_type", "float_type"):
            return _number_meant(written, whole=kind == "int_type")
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if kind == "string_type" and holds_text(info) and isinstance(value, bool | int | float):
        return "; put it in quotes"
    return ""


def _number_meant(text: str, whole: bool) -> str:
    """Return the remedy for a number in quotes, with leading zeros or with 1_000's underscores."""
    try:
        number = float(text)
    except ValueError:
        return ""
    if number.is_integer() and abs(number) < 1e15:
        return f"; write {int(number)}"
    return "" if whole or number - number else f"; write {number!r}"
