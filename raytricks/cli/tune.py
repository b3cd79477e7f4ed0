"""`raytricks tune`: search for better settings."""

import re
from typing import Annotated

import typer

import raytricks
from raytricks.cli.arguments import OverrideList, Target, require_target, split_arguments
from raytricks.errors import ConfigError

_BUDGET = re.compile(r"(\d+(?:\.\d+)?)(m|h|)")


def tune(
    target: Target = None,
    overrides: OverrideList = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Measure the speed for some seconds, print what it will cost, and stop.")
    ] = False,
    price: Annotated[
        float | None, typer.Option(metavar="PRICE", help="With --plan: of an hour of a GPU (or of a CPU worker).")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="N|Nm|Nh", help="Trials (40), or minutes or hours after which none starts (30m, 2h)."),
    ] = None,
    retrain_seeds: Annotated[
        int | None,
        typer.Option(min=0, metavar="K", help="Retrain default and winner with K fresh seeds (3); 0: no certificate."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[STUDY_DIR]",
            help="Go on with a study that was stopped. Alone: with the study of the same name=, or a new one.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line a trial, nothing else.")] = False,
) -> None:
    """Search the settings of tune.space, retrain the winner against the default, write best.yaml and report.html."""
    target, settings = split_arguments(target, overrides)
    if target is None and not settings and resume in (None, "auto"):
        raise ConfigError(
            "nothing to tune; name a config file with a tune.space, or --resume STUDY_DIR "
            "(try: raytricks tune configs/tune_digits.yaml)"
        )
    if quiet and as_json:
        raise ConfigError("--quiet prints nothing and --json prints the trials; leave one of them out")
    if price is not None and not plan:
        raise ConfigError("--price is for --plan, which prints the cost; add --plan")
    require_target(target)
    if budget is not None:
        settings = [*settings, _budget_setting(budget)]
    if retrain_seeds is not None:
        settings = [*settings, f"tune.retrain_seeds={retrain_seeds}"]
    from raytricks import study  # the seam: torch

    reporter = raytricks.Reporter("quiet" if quiet else "json" if as_json else "text")
    try:
        launch = study.open_launch(target, settings, resume=resume, reporter=reporter)
        if plan:
            launch.show_forecast(study.forecast_study(launch, price))
        else:
            launch.run()
    finally:
        reporter.close()


def _budget_setting(text: str) -> str:
    """Return the setting that a budget stands for."""
    found = _BUDGET.fullmatch(text.strip())
    if found is None or float(found[1]) == 0 or (not found[2] and "." in found[1]):
        raise ConfigError(f"--budget must be trials (40) or a time (30m, 2h), got {text!r}")
    if not found[2]:
        return f"tune.num_trials={found[1]}"
    return f"tune.budget_minutes={float(found[1]) * (60 if found[2] == 'h' else 1)}"
