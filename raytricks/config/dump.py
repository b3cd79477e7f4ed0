"""Write a configuration as YAML that loads to the same configuration.

`dump_yaml` is what a run saves; `show` adds who set each value, as comments.
"""

from collections.abc import Collection, Iterator, Mapping
import re

from pydantic import BaseModel
import yaml

from raytricks.config.loader import LoadedConfig
from raytricks.config.schema import ExperimentConfig
from raytricks.config.search_space import PARAMETERS, Choice
from raytricks.config.tuning import TuneConfig
from raytricks.config.yaml_file import parse_scalar

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*")
_OTHER_READERS_BOOLEANS = ("yes", "no", "on", "off", "y", "n")


def dump_yaml(config: ExperimentConfig) -> str:
    """Return all values of a configuration, nested, in the order of the schema.

    A `tune` section at its defaults is left out: a training run searches nothing.
    """
    left_out = ("tune",) if config.tune == TuneConfig() else ()
    return "".join(f"{line}\n" for line, _ in _tree_lines(config, left_out=left_out))


def show(loaded: LoadedConfig) -> str:
    """Return `dump_yaml` of the configuration with each value's source in an aligned comment."""
    tree = list(_tree_lines(loaded.config))
    width = max(len(line) for line, _ in tree)
    return "".join(_with_comment(line, loaded.sources.get(key, ""), width) for line, key in tree)


def _tree_lines(section: BaseModel, prefix: str = "", left_out: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield each line and the dotted key of its value, "" for the name of a section."""
    indent = "  " * prefix.count(".")
    for name, value in section:
        if name in left_out:
            continue
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:", ""
            yield from _tree_lines(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping) and value:
            yield f"{indent}{name}:", ""
            for key, distribution in value.items():
                shown = _drawn_from(distribution) if isinstance(distribution, BaseModel) else _yaml_value(distribution)
                yield f"{indent}  {_yaml_text(key)}: {shown}", f"{prefix}{name}.{key}"
        else:
            yield f"{indent}{name}: {_yaml_value(value)}", prefix + name


def _with_comment(line: str, source: str, width: int) -> str:
    if not source:
        return f"{line}\n"
    # a path may hold a line break, which would end the comment
    return f"{line:<{width}}  # {source if source.isprintable() else ascii(source)}\n"


def _drawn_from(distribution: BaseModel) -> str:
    """Return a distribution in its shortest form, its parameters in the usual order."""
    if isinstance(distribution, Choice):
        return _yaml_value(distribution.values)
    given = [(name, getattr(distribution, name, ())) for name in PARAMETERS]
    return f"{{{', '.join(f'{name}: {_yaml_value(value)}' for name, value in given if value != ())}}}"


def _yaml_value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_yaml_value(item) for item in value)}]"
    if isinstance(value, BaseModel | Mapping):
        return f"{{{', '.join(f'{_yaml_text(key)}: {_yaml_value(item)}' for key, item in dict(value).items())}}}"
    if isinstance(value, float):
        return repr(float(value))  # NumPy's floats are floats with a repr of their own
    return _yaml_text(value) if isinstance(value, str) else repr(value)


def _yaml_text(text: str) -> str:
    """Return text so that this and any other YAML reader takes it for text."""
    is_word = _PLAIN.fullmatch(text) and text.lower() not in _OTHER_READERS_BOOLEANS
    if is_word and parse_scalar(text) == text:
        return text
    return yaml.safe_dump(text, default_style='"', width=float("inf")).rstrip("\n")
