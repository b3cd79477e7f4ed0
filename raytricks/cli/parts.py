"""`raytricks parts`: what there is, and whether a part of one's own keeps the contract."""

from typing import Annotated

import typer

from raytricks.errors import ConfigError, RaytricksError
from raytricks.suggest import did_you_mean

_CHECK = "check"


def parts(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND|check]", help="A kind, such as trick or optimizer; or check.")
    ] = None,
    path: Annotated[
        str | None, typer.Argument(metavar="[PART]", help="With check: FILE.py:NAME or package.module:NAME.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of the documentation.")] = False,
) -> None:
    """List the parts, or hold one of your own against the contract that all of them keep."""
    if kind == _CHECK:
        _check(path)
        return
    from raytricks.parts.registry import BUILT_IN, KINDS  # pydantic, which --help does not need

    if kind is not None and kind not in KINDS:
        hint = did_you_mean(kind, [*KINDS, _CHECK]) or ";"
        raise ConfigError(f"parts: unknown kind {kind!r}{hint} there are {', '.join(KINDS)}")
    from raytricks.report.parts_table import markdown_table, part_lines  # as above

    rows = [row for row in BUILT_IN if kind in (None, row.kind)]
    if markdown:
        typer.echo(markdown_table(rows), nl=False)
    else:
        typer.echo("\n".join(part_lines(rows)) or f"raytricks brings no {kind} as a row; name one of your own")


def _check(path: str | None) -> None:
    if path is None:
        raise ConfigError("parts check: name the part, such as own_trick.py:SHARPEN")
    from raytricks.testing import PartCheckError, check_part  # the seam: torch

    try:
        made = check_part(path)
    except PartCheckError as failed:
        raise RaytricksError(str(failed)) from None
    typer.echo(f"{path}: {len(made)} checks hold ({', '.join(made)})")
