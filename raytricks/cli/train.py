"""`raytricks train`: train a model."""

from typing import Annotated

import typer

import raytricks
from raytricks.cli.arguments import OverrideList, Target, require_target, split_arguments
from raytricks.errors import ConfigError


def train(
    target: Target = None,
    overrides: OverrideList = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN_DIR]",
            help="Go on with an unfinished run from its newest checkpoint. Alone: with the run of the same name=, or a "
            "new one, so that the same command can be given again.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON lines, nothing else.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse to start when the doctor warns.")] = False,
    accept_changed: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="With --resume: go on although the code of this part of yours has changed."),
    ] = None,
) -> None:
    """Train a model on a folder of images, or as a config file says."""
    target, settings = split_arguments(target, overrides)
    if target is None and not settings and resume in (None, "auto"):
        raise ConfigError(
            "nothing to train on; name a config file, a directory of images, a table, or --resume RUN_DIR "
            "(try: raytricks train configs/digits.yaml)"
        )
    if quiet and as_json:
        raise ConfigError("--quiet prints nothing and --json prints the metrics; leave one of them out")
    require_target(target)
    reporter = raytricks.Reporter("quiet" if quiet else "json" if as_json else "text")
    raytricks.train(
        target,
        settings,
        resume=resume,
        reporter=reporter,
        dry_run=dry_run,
        strict=strict,
        accept_changed=accept_changed or (),
    )
