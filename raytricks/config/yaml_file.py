"""Read a YAML config file to dotted keys, their values and their lines.

Values follow the core rules of YAML 1.2, not PyYAML's 1.1: `1e-3` is a number, while `yes`,
`off`, `1:30`, `2024-01-01` and `010` stay text. Duplicate keys are errors. Anchors, aliases and
tags are refused: a config needs none, and they make files that explode or run code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
import re

import yaml

from raytricks.errors import ConfigError
from raytricks.suggest import as_question, closest

NULLS = ("null", "Null", "NULL", "~", "")
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class YamlFile:
    """What one file sets.

    Args:
        values: dotted key -> value. `a: {b: 1}` and `a.b: 1` both give `a.b`; an empty section
            keeps its own key, with the value {} or None.
        lines: dotted key -> line number, counted from 1.
    """

    values: dict[str, object] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def read_yaml(path: str | Path, problems: list[str]) -> YamlFile:
    """Read one config file.

    Args:
        path: the file; shown in messages as given.
        problems: receives a line for each key that is set twice, so that the caller can report
            it together with what else is wrong. The first value is returned.

    Raises:
        ConfigError: the file is missing, unreadable, no YAML, or holds no keys.
    """
    try:
        root = yaml.compose(_read_bytes(path), Loader=_CoreLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}:{_describe(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    if root is None or (isinstance(root, yaml.ScalarNode) and _value(root) is None):
        return YamlFile()
    if not isinstance(root, yaml.MappingNode):
        found = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        line = root.start_mark.line + 1
        raise ConfigError(f"{path}:{line}: must hold keys, like recipe.epochs: 120, got {found}")
    return _collect(path, root, problems)


def parse_scalar(text: str) -> object:
    """Return the value that `text` has in YAML; flow lists, flow mappings and quotes are read too.

    Raises:
        ConfigError: a list, mapping or quoted text that is not closed.
    """
    text = text.strip()
    if not text.startswith(("[", "{", '"', "'")):
        return _resolve(text)
    try:
        return _value(yaml.compose(text, Loader=_CoreLoader))
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{error.problem} in {text!r}") from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"cannot read {text[:80]!r}") from None


class _CoreLoader(yaml.SafeLoader):
    """Composes plain nodes only."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if event.anchor is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors (&) and aliases (*) are not supported; write the value out, or quote it",
                problem_mark=event.start_mark,
            )
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"tags are not supported, got {event.tag!r}; quote the value if it is text",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


def _resolve(text: str) -> object:
    """Return the value of an unquoted scalar."""
    if text in NULLS:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    try:
        if _DECIMAL.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, base=0)
    except ValueError:  # Python refuses more than 4300 digits
        return text
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _value(node: yaml.Node | None) -> object:
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _value(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _resolve(node.value)
    return None


def _leaves(
    path: str | Path, node: yaml.MappingNode, prefix: str, problems: list[str]
) -> Iterator[tuple[str, int, object]]:
    """Yield dotted key, line and value, in the order of the file."""
    first_lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"{path}:{line}: a key must be one word, like recipe.epochs")
            continue
        key = prefix + key_node.value
        if key in first_lines:
            problems.append(_set_twice(path, line, key, first_lines[key]))
            continue
        first_lines[key] = line
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            yield from _leaves(path, value_node, key + ".", problems)
        else:
            yield key, line, _value(value_node)


def _collect(path: str | Path, root: yaml.MappingNode, problems: list[str]) -> YamlFile:
    content = YamlFile()
    for key, line, value in _leaves(path, root, "", problems):
        if key in content.values:  # once nested, once dotted
            problems.append(_set_twice(path, line, key, content.lines[key]))
            continue
        content.values[key] = value
        content.lines[key] = line
    return content


def _set_twice(path: str | Path, line: int, key: str, first_line: int) -> str:
    return f"{path}:{line}: {key} is set twice (first on line {first_line})"


def _describe(error: yaml.YAMLError) -> str:
    """Return `6:5: what is wrong` on one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}: " if mark else " "
        context = f" {error.context}" if error.context and error.problem else ""
        if context and error.context_mark:
            context += f" that starts on line {error.context_mark.line + 1}"
        return f"{place}{error.problem or error.context}{context}"
    if isinstance(error, yaml.reader.ReaderError):
        return f" is not a text file in UTF-8 ({error.reason} at position {error.position})"
    return " " + " ".join(str(error).split())


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"no such config file {path}{_similar_files(Path(path))}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a directory; give the config file itself") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _similar_files(path: Path) -> str:
    """Return did-you-mean over the YAML files beside `path` and in configs/."""
    found: dict[str, str] = {}
    for folder in dict.fromkeys([path.parent, Path("configs")]):
        for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            found.setdefault(file.stem, str(file))
    return as_question([found[stem] for stem in closest(path.stem, found)])
