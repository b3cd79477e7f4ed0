"""`raytricks`: the commands. Nothing heavy is imported before it is needed."""

import json
from pathlib import Path
import sys
from typing import Annotated, Any

import typer

import raytricks
from raytricks.cli.arguments import OverrideList, Target, require_target, split_arguments, with_resume_value
from raytricks.cli.check import check
from raytricks.cli.data import data_app
from raytricks.cli.evaluate import evaluate
from raytricks.cli.export import export
from raytricks.cli.jobs import jobs_app
from raytricks.cli.parts import parts
from raytricks.cli.predict import predict
from raytricks.cli.report import report
from raytricks.cli.submit import submit_and_follow
from raytricks.cli.train import train
from raytricks.cli.tune import tune
from raytricks.errors import ConfigError, InterruptedRun, RaytricksError
from raytricks.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train the best image classifier your hardware can make, on a laptop or a Ray cluster.",
)
config_app = typer.Typer(no_args_is_help=True, help="Look at configs without running them.")
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(jobs_app, name="jobs")

# The base of every usage error: click's class, which typer imports or, in newer versions, carries.
_UsageError: Any = typer.BadParameter.__base__
_STOPPED = 130


app.command(
    epilog="Examples:  raytricks train configs/digits.yaml workers=0   |   raytricks train photos/ recipe.epochs=20"
)(train)
app.command(
    epilog="Examples:  raytricks evaluate runs/first   |   raytricks evaluate runs/first photos/ --against runs/second"
)(evaluate)
app.command(
    epilog="Examples:  raytricks predict runs/first photo.jpg   |   raytricks predict runs/first photos/ -o answers.csv"
)(predict)
app.command(epilog="Examples:  raytricks export runs/first   |   raytricks export runs/first -o small.onnx --int8")(
    export
)
app.command(epilog="Examples:  raytricks report runs/first   |   raytricks report runs/first runs/second -o both.html")(
    report
)
app.command(
    epilog="Examples:  raytricks tune configs/tune_digits.yaml   |   raytricks tune photos/ --budget 2h "
    "tune.space.tricks.mixup.alpha=[0,0.1,0.2]"
)(tune)
app.command(
    "submit",
    context_settings={"allow_interspersed_args": False},  # what follows `train` is its own
    epilog="Examples:  raytricks submit --follow -- train configs/digits.yaml   |   raytricks submit --address "
    "http://head:8265 -- tune photos/ --budget 2h",
)(submit_and_follow)


app.command(
    epilog="Examples:  raytricks check configs/digits.yaml   |   raytricks check output_dir=/shared/runs --distributed"
)(check)


@app.command(
    epilog="Examples:  raytricks doctor configs/digits.yaml   |   raytricks doctor photos/ recipe.epochs=20 --strict"
)
def doctor(
    target: Target = None,
    overrides: OverrideList = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors: exit with 2.")] = False,
) -> None:
    """Warn of settings that are known to train badly, or to do nothing."""
    target, settings = split_arguments(target, overrides)
    if target is None and not settings:
        raise ConfigError(
            "nothing to diagnose; name a config file or a directory of images "
            "(try: raytricks doctor configs/digits.yaml)"
        )
    require_target(target)
    findings = raytricks.diagnose(target, settings)
    if strict:
        from raytricks.recipe.doctor import refuse  # pydantic, which --help does not need

        refuse(findings)
    for finding in findings:
        typer.echo(f"warning: {finding}")
    count = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
    typer.echo(count if findings else "no findings: the recipe is sound as far as the doctor knows")


@config_app.command(
    "show",
    epilog="Examples:  raytricks config show configs/digits.yaml recipe.epochs=3   |   raytricks config show",
)
def config_show(target: Target = None, overrides: OverrideList = None) -> None:
    """Print the whole config with the source of each value."""
    from raytricks.config import show  # pydantic, which --help does not need

    target, settings = split_arguments(target, overrides)
    typer.echo(show(raytricks.load_config(target, settings)), nl=False)


@config_app.command("schema", epilog="Example:  raytricks config schema > raytricks.schema.json")
def config_schema() -> None:
    """Print the JSON schema of config files, for editors."""
    from raytricks.config import json_schema  # as above

    typer.echo(json.dumps(json_schema(), indent=2))


app.command(epilog="Examples:  raytricks parts trick   |   raytricks parts check own_trick.py:SHARPEN")(parts)


@app.command(epilog="Example:  raytricks models | grep efficientnet")
def models(
    timm: Annotated[bool, typer.Option("--timm", help="Also list the models of timm.")] = False,
) -> None:
    """List the models that model.name knows."""
    from raytricks.models import registry, timm_models  # the seam: torch

    names = registry.list_models()
    if timm:
        more = timm_models.list_timm_models()
        if not more:
            raise ConfigError("--timm: timm is not installed; pip install 'raytricks[timm]'")
        names += more
    typer.echo("\n".join(names))


@app.command(epilog="Example:  raytricks trust runs/from-a-colleague")
def trust(run_dir: Annotated[str, typer.Argument(help="A run's directory whose code you have read.")]) -> None:
    """Let the code that somebody else's run names be imported when the run is resumed, repeated or loaded."""
    from raytricks.config.run_code import trust_run  # pydantic

    for part in trust_run(Path(run_dir)):
        typer.echo(f"trusted: {part.kind} {part.spec} ({part.fingerprint[:12]})")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _usage_lines(error: typer.BadParameter) -> list[str]:
    """Say what is wrong with the command line, and what to write instead."""
    command = error.ctx.command_path if error.ctx is not None else "raytricks"
    message = error.format_message().rstrip(".?")
    if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help itself
        return [error.format_message()]
    if "No such option" in message:
        message += "; settings are key=value, such as recipe.epochs=3"
    return [f"error: {message}; '{command} --help' lists what there is"]


def main() -> None:
    """Run the command line; ends the process with the exit code of raytricks.errors."""
    try:
        code = app(with_resume_value(sys.argv[1:]), standalone_mode=False)
    except _UsageError as error:
        print(*_usage_lines(error), sep="\n", file=sys.stderr)
        sys.exit(error.exit_code)
    except InterruptedRun as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except RaytricksError as error:
        if error.details:
            print(error.details.rstrip(), file=sys.stderr)
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        code = _STOPPED
    if code == _STOPPED:  # typer turns Ctrl-C into this
        print("stopped", file=sys.stderr)
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
