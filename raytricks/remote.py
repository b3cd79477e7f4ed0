"""The Python API of jobs: run a command on a Ray cluster, which `raytricks submit` calls too."""

from collections.abc import Callable, Sequence
from pathlib import Path

from raytricks.cli.command_line import parse_command
from raytricks.cluster.jobs.job import Job
from raytricks.cluster.jobs.submission import submit_command


def submit(
    command: Sequence[str],
    *,
    address: str | None = None,
    name: str | None = None,
    working_dir: str | Path = ".",
    pip: bool = False,
    max_upload_mib: int = 100,
    check: bool = True,
    say: Callable[[str], None] | None = None,
) -> Job:
    """Start a command on a Ray cluster, in a copy of a directory.

    Args:
        command: what follows `raytricks`, such as ["train", "configs/digits.yaml", "workers=2"].
        address: URL of the dashboard, such as http://head:8265; None: RAY_API_SERVER_ADDRESS or RAY_ADDRESS.
        name: id of the job, and name of the run if the command sets none. None: chosen.
        working_dir: what travels with the job, less what .gitignore and .rayignore name, and secrets.
        pip: have what raytricks needs installed on the nodes.
        max_upload_mib: largest size of the files that travel, MiB, at most 511.
        check: refuse absolute paths that the cluster does not see.
        say: called with each line for the user; None: says nothing.

    Returns:
        The job, which has been started: `id`, `run_dir`, `status()`, `logs()`, `wait()`, `stop()`.

    Raises:
        ConfigError: the command would fail at once, or its files would be lost or not be found.
        DataError: its data would not be found.
        ClusterError: the cluster does not answer, or does not take the job.
    """
    return submit_command(
        parse_command(command, Path(working_dir).expanduser()),
        address=address,
        name=name,
        working_dir=working_dir,
        pip=pip,
        max_upload_mib=max_upload_mib,
        check=check,
        say=say or (lambda line: None),
    )
