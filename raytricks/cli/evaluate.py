"""`raytricks evaluate`: what a trained model is worth."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from raytricks.cli.progress import progress_bar
from raytricks.errors import ConfigError

ModelPlace = Annotated[
    str,
    typer.Argument(help="A run's directory, one of its checkpoints, or a model.safetensors.", show_default=False),
]
Weights = Annotated[
    str, typer.Option(metavar="last|best|average|EPOCH", help="Of a run: which weights; a kept epoch's by its number.")
]
Device = Annotated[
    str | None, typer.Option(metavar="cpu|cuda", help="Default: the GPU where there is one.", show_default=False)
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Import the model's own code, though somebody else trained it.")
]
Workers = Annotated[int, typer.Option(min=0, metavar="N", help="Processes on Ray; 0: none, all in this one.")]


def evaluate(
    model: ModelPlace,
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder of class folders, a table, shards, Parquet, digits or fashion_mnist. Default: what the run "
            "evaluated.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Compare with another model on the same images.")
    ] = None,
    weights: Weights = "last",
    split: Annotated[
        Literal["auto", "train", "val", "test", "all"], typer.Option(help="Which images of the data.")
    ] = "auto",
    flip: Annotated[
        bool, typer.Option("--flip", help="Answer by the mean over an image and its mirror image.")
    ] = False,
    eval_size: Annotated[
        int | None,
        typer.Option(min=1, max=4096, metavar="PIXELS", help="Side that the model sees."),
    ] = None,
    workers: Workers = 0,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    table: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write a row a class.", show_default=False)
    ] = None,
    page: Annotated[
        str | None,
        typer.Option("--page", metavar="FILE.html", help="Write a page to look at in a browser.", show_default=False),
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Score a trained model: every figure with a 95% interval, by class, calibration, against another model."""
    for option, file in (("--csv", table), ("--page", page)):
        if file is not None and not Path(file).expanduser().parent.is_dir():
            raise ConfigError(f"{option} {file}: {Path(file).parent} is no directory; make it, or name another")
    from raytricks.report.evaluation_lines import evaluation_csv, evaluation_lines  # the seam: torch
    from raytricks.use.evaluating import evaluate as evaluate_model

    with progress_bar("evaluating") as progress:
        found = evaluate_model(
            model,
            data,
            against=against,
            weights=weights,
            split=split,
            flip=flip,
            eval_size=eval_size,
            workers=workers,
            device=device,
            trust_code=trust_code,
            progress=progress,
        )
    if page is not None:
        from raytricks.use import reporting  # plotly

        place = Path(page).expanduser()
        reporting.evaluation_page(found, data, split, place, eval_size=eval_size, trust_code=trust_code)
    if table is not None:
        Path(table).expanduser().write_text(evaluation_csv(found))
    typer.echo(json.dumps(found.as_dict(), indent=1) if as_json else "\n".join(evaluation_lines(found)))
