"""`raytricks predict`: answers for images, in a file."""

from typing import Annotated

import typer

from raytricks.cli.evaluate import Device, ModelPlace, TrustCode, Weights, Workers
from raytricks.cli.progress import progress_bar
from raytricks.errors import ConfigError


def predict(
    model: ModelPlace,
    images: Annotated[
        str,
        typer.Argument(
            help="A file, a folder, a glob, a .txt of paths, Parquet of encoded images, or an s3:// or gs:// URL.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write a row an image: .parquet, .csv or .jsonl. Default: print a line an image.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = "last",
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Classes in a row, most probable first.")] = 5,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help='Least probability of an answer; below it: "unsure".', show_default=False),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help='Answer only where this part of the answers is right, with 95% confidence; else: "unsure".',
            show_default=False,
        ),
    ] = None,
    precision_data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled images that --precision is derived from. Default: what the run evaluated.",
            show_default=False,
        ),
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Also write what the last linear layer is given.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images at once.", show_default=False)
    ] = None,
    workers: Workers = 0,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Predict for any number of images; a stopped prediction goes on with the same command."""
    from raytricks.use import predicting  # the seam: torch

    if out is None:
        of_files = {
            "--precision": precision,
            "--precision-data": precision_data,
            "--embeddings": embeddings,
            "--batch-size": batch_size,
            "--workers": workers,
            "--overwrite": overwrite,
        }
        if given := [name for name, value in of_files.items() if value]:
            raise ConfigError(f"{', '.join(given)}: only with a file to write; add -o FILE, such as -o answers.csv")
        for line in predicting.printed(
            model, images, weights=weights, top=top, threshold=threshold, device=device, trust_code=trust_code
        ):
            typer.echo(line)
        return
    with progress_bar("predicting") as progress:
        result = predicting.predict(
            model,
            images,
            out,
            weights=weights,
            top=top,
            threshold=threshold,
            precision=precision,
            precision_data=precision_data,
            embeddings=embeddings,
            batch_size=batch_size,
            workers=workers,
            device=device,
            overwrite=overwrite,
            trust_code=trust_code,
            progress=progress,
        )
    typer.echo("\n".join(predicting.result_lines(result)))
