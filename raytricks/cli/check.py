"""`raytricks check`: look at the environment of a run."""

from typing import Annotated

import typer

import raytricks
from raytricks.cli.arguments import OverrideList, Target, require_target, split_arguments
from raytricks.errors import ClusterError
from raytricks.parts.sources import is_data_place


def check(
    target: Target = None,
    overrides: OverrideList = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Also train the digits for some steps with two Ray workers.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Check that this machine, and the cluster of RAY_ADDRESS, can carry out a run; exit with 4 if not."""
    target, settings = split_arguments(target, overrides)
    require_target(target)
    if target is not None and is_data_place(target):
        config = raytricks.load_config(None, settings, {"data.path": target}, "the data given").config
    else:
        config = raytricks.load_config(target, settings).config
    from raytricks.cluster.checks.environment import check_environment  # numpy and more, which --help does not need
    from raytricks.report.check_lines import print_json, print_results

    show = print_json if as_json else print_results
    if not show(check_environment(config, distributed=distributed)):
        raise typer.Exit(ClusterError.exit_code)
