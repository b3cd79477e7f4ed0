"""`raytricks submit`: run a command as a job of a Ray cluster."""

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

import raytricks
from raytricks.errors import InterruptedRun

if TYPE_CHECKING:
    from raytricks.cluster.jobs.job import Job

_FOLLOW = "--follow"
_UsageError: Any = typer.BadParameter.__base__
Address = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The cluster's dashboard (default: RAY_API_SERVER_ADDRESS or RAY_ADDRESS)."),
]


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
    job = raytricks.submit(
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
    from raytricks.cluster.jobs.log import without_notes_of_ray  # slow to import, and --help does not need it

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
