"""`raytricks submit` and `raytricks.submit`: run a command as a job of a Ray cluster."""

from collections.abc import Sequence
from pathlib import Path
import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raytricks.cli.arguments import require_target, split_arguments, with_resume_value
from raytricks.errors import ConfigError, InterruptedRun

if TYPE_CHECKING:
    from raytricks.cluster.jobs.command import JobCommand
    from raytricks.cluster.jobs.job import Job

_FOLLOW = "--follow"
_UsageError: Any = typer.BadParameter.__base__
Address = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The cluster's dashboard (default: RAY_API_SERVER_ADDRESS or RAY_ADDRESS)."),
]


def submit(
    command: Sequence[str],
    *,
    address: str | None = None,
    name: str | None = None,
    working_dir: str | Path = ".",
    pip: bool = False,
    max_upload_mib: int = 100,
    check: bool = True,
    say: Any = lambda line: None,
) -> "Job":
    """Start a command on a Ray cluster, in a copy of a directory.

    Args:
        command: what follows `raytricks`, such as ["train", "configs/digits.yaml", "workers=2"].
        address: URL of the dashboard, such as http://head:8265; None: RAY_API_SERVER_ADDRESS or RAY_ADDRESS.
        name: id of the job, and name of the run if the command sets none. None: chosen.
        working_dir: what travels with the job, less what .gitignore and .rayignore name, and secrets.
        pip: have what raytricks needs installed on the nodes.
        max_upload_mib: largest size of the files that travel, MiB, at most 511.
        check: refuse absolute paths that the cluster does not see.
        say: called with each line for the user.

    Returns:
        The job, which has been started: `id`, `run_dir`, `status()`, `logs()`, `wait()`, `stop()`.

    Raises:
        ConfigError: the command would fail at once, or its files would be lost or not be found.
        DataError: its data would not be found.
        ClusterError: the cluster does not answer, or does not take the job.
    """
    from raytricks.cluster.jobs.submission import submit_command

    return submit_command(
        parse_command(command, Path(working_dir).expanduser()),
        address=address,
        name=name,
        working_dir=working_dir,
        pip=pip,
        max_upload_mib=max_upload_mib,
        check=check,
        say=say,
    )


def submit_and_follow(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- train|tune ...", help="The command, as it is run here.", show_default=False),
    ] = None,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option(_FOLLOW, help="Print the job's log, and end with its exit code (143: it was stopped).")
    ] = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Id of the job, and name of its run.")] = None,
    working_dir: Annotated[
        str, typer.Option(metavar="DIR", help="What travels with the job, and where it runs.")
    ] = ".",
    pip: Annotated[bool, typer.Option("--pip", help="Have raytricks' requirements installed on the nodes.")] = False,
    max_upload_mib: Annotated[int, typer.Option(min=1, max=511, help="Largest size of what travels, MiB.")] = 100,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Submit although the cluster may not see an absolute path.")
    ] = False,
) -> None:
    """Run a command as a job of a Ray cluster, in a copy of this directory."""
    words = list(command or [])
    follow = follow or _FOLLOW in words  # no command that can be submitted has such an option
    job = submit(
        [word for word in words if word != _FOLLOW],
        address=address,
        name=name,
        working_dir=working_dir,
        pip=pip,
        max_upload_mib=max_upload_mib,
        check=not no_check,
        say=typer.echo,
    )
    if follow:
        raise typer.Exit(follow_job(job))
    for what in (f"logs {job.id} {_FOLLOW}", f"status {job.id}", f"stop {job.id}"):
        typer.echo(f"raytricks jobs {what}{job.option}")


def follow_job(job: "Job") -> int:
    """Print a job's log until its end; returns its exit code. Ctrl-C leaves the job alone."""
    from raytricks.cluster.jobs.log import without_notes_of_ray

    try:
        info = job.follow(without_notes_of_ray(lambda text: typer.echo(text, nl=False)))
    except (KeyboardInterrupt, typer.Abort):
        raise InterruptedRun(
            f"\njob {job.id} goes on; stop it with `raytricks jobs stop {job.id}{job.option}`", signal.SIGINT
        ) from None
    if info.result:
        code = f" with exit code {info.exit_code}" if info.exit_code is not None else ""
        reason = f": {info.reason}" if info.exit_code is None and info.reason else ""
        typer.echo(f"job {job.id} {info.status}{code}{reason}", err=True)
    return info.result


def parse_command(words: Sequence[str], directory: Path) -> "JobCommand":
    """Take a command line apart, as the command itself would.

    Args:
        words: after `raytricks`.
        directory: where it is to run.

    Raises:
        ConfigError: no such command, an unknown option, or a target that is not there.
    """
    from raytricks.cli.main import app
    from raytricks.cluster.jobs.command import SUBMITTABLE, JobCommand
    from raytricks.config import did_you_mean

    if isinstance(words, str):
        raise ConfigError(f"the command must be a list of words, got {words!r}; write {words.split()!r}")
    name, *arguments = map(str, words) if words else ("",)
    if name not in SUBMITTABLE:
        got = f", got {name!r}{did_you_mean(name, SUBMITTABLE)}" if name else ""
        raise ConfigError(
            f"a command to submit must be {' or '.join(SUBMITTABLE)}{got or '; try: raytricks submit -- train CONFIG'}"
        )
    command: Any = typer.main.get_command(app)
    try:
        context = command.commands[name].make_context(
            f"raytricks {name}", with_resume_value(arguments) if arguments else []
        )
    except _UsageError as error:
        message = error.format_message().rstrip(".?")
        raise ConfigError(f"{message}; 'raytricks {name} --help' lists what there is") from None
    given = dict(context.params)
    target, settings = split_arguments(given.pop("target"), given.pop("overrides"))
    resume = given.pop("resume")
    if target is not None and not Path(target).expanduser().is_absolute():
        require_target(str(directory / target))
    options = [word for option in context.command.params for word in _words(option, given.get(option.name))]
    return JobCommand(name, target, tuple(settings), resume, tuple(options))


def _words(option: Any, value: object) -> list[str]:
    """Return an option as it is written, nothing for one that was not given."""
    if value is None or value is False:
        return []
    return [option.opts[0]] if value is True else [option.opts[0], str(value)]
