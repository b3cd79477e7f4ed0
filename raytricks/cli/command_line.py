"""A command line of ours, taken apart as the command itself would: for jobs, which run it elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from raytricks.cli.arguments import require_target, split_arguments, with_resume_value
from raytricks.cli.train import train
from raytricks.cli.tune import tune
from raytricks.cluster.jobs.command import SUBMITTABLE, JobCommand
from raytricks.errors import ConfigError
from raytricks.suggest import did_you_mean

_UsageError: Any = typer.BadParameter.__base__
_commands = typer.Typer()
for _name, _function in zip(SUBMITTABLE, (train, tune), strict=True):
    _commands.command(_name)(_function)


def parse_command(words: Sequence[str], directory: Path) -> JobCommand:
    """Take a command line apart, as the command itself would.

    Args:
        words: after `raytricks`.
        directory: where it is to run.

    Raises:
        ConfigError: no such command, an unknown option, or a target that is not there.
    """
    if isinstance(words, str):
        raise ConfigError(f"the command must be a list of words, got {words!r}; write {words.split()!r}")
    name, *arguments = map(str, words) if words else ("",)
    if name not in SUBMITTABLE:
        got = f", got {name!r}{did_you_mean(name, SUBMITTABLE)}" if name else ""
        raise ConfigError(
            f"a command to submit must be {' or '.join(SUBMITTABLE)}{got or '; try: raytricks submit -- train CONFIG'}"
        )
    command: Any = typer.main.get_command(_commands)
    try:
        context = command.commands[name].make_context(
            f"raytricks {name}", with_resume_value(arguments) if arguments else []
        )
    except _UsageError as error:
        message = error.format_message().rstrip(".?")
        raise ConfigError(f"{message}; 'raytricks {name} --help' lists what there is") from None
    given = dict(context.params)
    target, settings = split_arguments(given.pop("target"), given.pop("overrides"))
    resume = given.pop("resume")
    if target is not None and not Path(target).expanduser().is_absolute():
        require_target(str(directory / target))
    options = [word for option in context.command.params for word in _words(option, given.get(option.name))]
    return JobCommand(name, target, tuple(settings), resume, tuple(options))


def _words(option: Any, value: object) -> list[str]:
    """Return an option as it is written, nothing for one that was not given."""
    if value is None or value is False:
        return []
    if isinstance(value, list | tuple):
        return [word for item in value for word in (option.opts[0], str(item))]
    return [option.opts[0]] if value is True else [option.opts[0], str(value)]
