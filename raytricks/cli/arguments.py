"""The arguments that commands share: a target and settings."""

from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from raytricks.errors import ConfigError
from raytricks.suggest import as_question, closest

Target = Annotated[
    str | None,
    typer.Argument(
        help="A config file (YAML), a directory of images, or a table (CSV) of their paths and labels.",
        show_default=False,
    ),
]
OverrideList = Annotated[
    list[str] | None,
    typer.Argument(help="Settings to change, such as recipe.epochs=10.", show_default=False),
]


def with_resume_value(arguments: list[str]) -> list[str]:
    """Give a `--resume` that stands alone its value, auto; typer's options all take one or none."""
    given: list[str] = []
    for argument, following in zip_longest(arguments, arguments[1:]):
        given.append(argument)
        if argument == "--resume" and (following is None or following.startswith("-") or "=" in following):
            given.append("auto")
    return given


def split_arguments(target: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """A first argument that is a setting is no target."""
    settings = list(overrides or [])
    if target is not None and "=" in target:
        return None, [target, *settings]
    return target, settings


def require_target(target: str | None) -> None:
    """Say at once that a config file or a data directory does not exist."""
    if target is None or Path(target).expanduser().exists() or Path(target).suffix in (".yaml", ".yml"):
        return  # the loader knows the config files that a missing one was mistaken for
    raise ConfigError(f"{target}: no such config file or data directory{_meant(target)}")


def _meant(target: str) -> str:
    """Return what a first argument that is no path was probably meant to be."""
    from raytricks.config import dotted_keys  # pydantic, which --help does not need

    if target in dotted_keys():
        return f"; to set it, write {target}=VALUE"
    if target in ("digits", "fashion_mnist"):
        return f"; did you mean data.source={target}?"
    path = Path(target)
    siblings = [p for p in path.parent.iterdir() if p.name[0] != "."] if path.parent.is_dir() else []
    places = {p.stem if p.suffix in (".yaml", ".yml") else p.name: str(p) for p in siblings}
    found = [places[name] for name in closest(path.name, places)]
    return as_question(found) or "; name a YAML file, a directory of images, or settings as key=value"
