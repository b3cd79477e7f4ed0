"""`raytricks report`: a page to look at."""

from typing import Annotated

import typer


def report(
    runs: Annotated[list[str], typer.Argument(help="Directories of runs.", show_default=False)],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE.html", help="Default: report.html in the run's directory.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a page of a run, or of several side by side, that opens offline; and the model card of one."""
    from raytricks.use import reporting  # the seam: torch, plotly

    typer.echo(reporting.report(runs, out))
