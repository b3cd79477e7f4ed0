"""The Python API, which the command line calls too: diagnose a run's recipe, train it.

`raytricks.plan` works a run out, `raytricks.run` carries it out.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytricks.errors import ConfigError
from raytricks.parts.bring import spec_of
from raytricks.plan import RESUME_AUTO, Overrides, plan_run, with_override
from raytricks.recipe.doctor import refuse
from raytricks.report.progress import Reporter

if TYPE_CHECKING:
    from raytricks.recipe.doctor import Finding
    from raytricks.report.progress import Reporter
    from raytricks.run import RunResult


def diagnose(target: str | Path | None = None, overrides: Overrides = ()) -> "list[Finding]":
    """Return what the recipe doctor warns of; an empty list for a sound recipe. Trains nothing.

    Args:
        target: as of `plan_run`.
        overrides: as of `plan_run`.

    Raises:
        ConfigError: the run could not start at all.
        DataError: the data cannot be used.
    """
    plan = plan_run(target, overrides)
    from raytricks.run import inspect  # the seam: torch, after the config is known to be valid

    return inspect(plan).findings


def train(
    target: str | Path | None = None,
    overrides: Overrides = (),
    *,
    resume: str | Path | None = None,
    reporter: "Reporter | None" = None,
    dry_run: bool = False,
    strict: bool = False,
    model: Callable[..., Any] | None = None,
    callbacks: Sequence[Any] = (),
    accept_changed: Collection[str] = (),
) -> "RunResult | None":
    """Train a model, in this process (`workers: 0`) or on Ray, and write its run directory.

    Args:
        target: a config file, a directory of images or a table of them; not with `resume`.
        overrides: dotted settings.
        resume: directory of an unfinished run, continued from its newest valid checkpoint. "auto": the run
            that target and overrides name (`name=...`), when there is one, else a new run; a finished one
            is returned as it is. The same command may so be given again and again.
        reporter: where progress goes; None prints nothing but to the run's log.txt.
        dry_run: stop after the header; writes nothing and returns None.
        strict: raise ConfigError, before anything is written, for what `diagnose` finds.
        model: a function or class that returns a torch.nn.Module, in place of model.name; it must stand at the top
            of a file or module, where Ray's workers find it too.
        callbacks: functions of a record, or objects with `record(record)`; called in this process.
        accept_changed: names of parts of the user's own whose code may have changed since the run began.

    Raises:
        RaytricksError: see raytricks.errors for the kinds.
    """
    if model is not None:
        overrides = with_override(overrides, "model.name", spec_of(model))
    if resume is not None and resume != RESUME_AUTO and target is not None:
        raise ConfigError(
            f"--resume {resume} takes its config from the run; leave {target} out, or write --resume auto to go on "
            "with the run that the command names"
        )
    plan = plan_run(target, overrides, accept_changed) if resume in (None, RESUME_AUTO) else None
    from raytricks import run  # the seam: torch, after the config is known to be valid

    reporter, run_dir = reporter or Reporter("quiet"), None
    for callback in callbacks:
        reporter.also(getattr(callback, "record", callback))
    if plan is None:
        run_dir = Path(str(resume)).expanduser()
        plan = run.plan_again(run_dir, overrides, accept_changed)
    elif resume is not None:
        run_dir = run.find_run(plan, accept_changed)
        if run_dir is not None and (finished := run.result_of_finished(run_dir)) is not None:
            reporter.line(f"finished before: {run_dir}; nothing is left to do")
            return finished
    inspection = run.inspect(plan)
    try:
        if strict:
            refuse(inspection.findings)
        if dry_run:
            run.show_header(plan, inspection, reporter, run_dir)
            return None
        return run.execute(plan, inspection, reporter, run_dir, accept_changed)
    finally:
        reporter.close()
