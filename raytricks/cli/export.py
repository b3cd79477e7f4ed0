"""`raytricks export`: a file for another runtime."""

from typing import Annotated

import typer

from raytricks.cli.evaluate import ModelPlace, TrustCode, Weights


def export(
    model: ModelPlace,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="Default: beside the model.", show_default=False),
    ] = None,
    format: Annotated[str, typer.Option(metavar="onnx|torch-export", help="What reads it.")] = "onnx",
    bare: Annotated[
        bool, typer.Option("--bare", help="Normalised images in, logits out; preprocessing in FILE.json.")
    ] = False,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Decoded images of any size in, resized inside: within 2 levels of ours.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also a file of 8 bits, and what it costs.")] = False,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled images to compare on. Default: the run's.", show_default=False),
    ] = None,
    weights: Weights = "last",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Export a model with its preprocessing, run the file in a fresh process, keep it when it answers alike."""
    from raytricks.use import exporting  # the seam: torch

    result, quantised = exporting.export(
        model,
        out,
        format=format,
        bare=bare,
        any_size=any_size,
        int8=int8,
        data=data,
        weights=weights,
        overwrite=overwrite,
        trust_code=trust_code,
    )
    typer.echo("\n".join(exporting.export_lines(result, quantised)))
