"""`raytricks jobs`: list the jobs of a cluster, ask for one, read its log, stop it."""

from datetime import datetime
import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

import raytricks
from raytricks.cli.submit import Address, follow_job

if TYPE_CHECKING:
    from raytricks.cluster.jobs.job import JobInfo

jobs_app = typer.Typer(no_args_is_help=True, help="Jobs that were submitted to a Ray cluster.")

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.", show_default=False)]
_TAIL = 5
"""Lines of Ray's message that `status` shows."""


@jobs_app.command("list", epilog="Example:  raytricks jobs list --address http://head:8265")
def show_jobs(
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, nothing else.")] = False,
) -> None:
    """List the jobs of the cluster, the newest first."""
    from raytricks.cluster.jobs.job import jobs_at  # slow to import, and --help does not need it

    found = jobs_at(address)
    if as_json:
        typer.echo(json.dumps([_as_json(info) for info in found], indent=1))
        return
    rows = [("id", "status", "started", "duration", "command"), *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows if found else []:
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]]))
    if not found:
        typer.echo("no jobs")


@jobs_app.command(epilog="Example:  raytricks jobs status train-20260101-120000-ab12")
def status(id: Id, address: Address = None) -> None:
    """Print the status of a job, and why it failed."""
    info = raytricks.Job.at(address, id).info()
    code = f", exit code {info.exit_code}" if info.exit_code is not None else ""
    typer.echo(f"{info.id}: {info.status}{code}, started {_time(info.started_at)}, {_duration(info)}")
    typer.echo(info.entrypoint)
    for line in [line for line in info.message.splitlines() if line.strip()][-_TAIL:]:
        typer.echo(line)


@jobs_app.command(epilog="Example:  raytricks jobs logs train-20260101-120000-ab12 --follow")
def logs(
    id: Id,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job ends, and end with its exit code.")
    ] = False,
) -> None:
    """Print what a job has printed."""
    job = raytricks.Job.at(address, id)
    if follow:
        job.info()  # an unknown id is one line
        raise typer.Exit(follow_job(job))
    text = job.logs()
    typer.echo(text, nl=False)
    if not text:
        info = job.info()
        typer.echo(f"job {id} has printed nothing; it is {info.status}: {info.reason}", err=True)


@jobs_app.command(epilog="Example:  raytricks jobs stop train-20260101-120000-ab12")
def stop(id: Id, address: Address = None) -> None:
    """Stop a job (SIGTERM, then SIGKILL) and wait until it has stopped."""
    job = raytricks.Job.at(address, id)
    is_stopped = job.stop()
    typer.echo(f"{id}: {'STOPPED' if is_stopped else f'was over already, {job.status()}'}")


def _row(info: "JobInfo") -> tuple[str, str, str, str, str]:
    return info.id, info.status, _time(info.started_at), _duration(info), info.entrypoint


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _duration(info: "JobInfo") -> str:
    if info.started_at is None:
        return "-"
    total_s = int(max(0.0, (info.ended_at or time.time()) - info.started_at))
    minutes, seconds = divmod(total_s, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


def _as_json(info: "JobInfo") -> dict[str, object]:
    return {**vars(info), "is_over": info.is_over}
