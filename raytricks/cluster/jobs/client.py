"""Ray's own client of its jobs: uploads and log streams, without its chatter."""

from collections.abc import Iterator
from contextlib import contextmanager
import logging
import os
from typing import Any
import warnings

from raytricks.cluster.authentication import prepare_authentication
from raytricks.cluster.jobs.dashboard import Dashboard, NoAnswer
from raytricks.errors import ClusterError, RaytricksError


def submit_job(dashboard: Dashboard, id: str, entrypoint: str, runtime_env: dict[str, Any]) -> None:
    """Upload the files of a runtime_env and start a command as a job.

    Raises:
        ClusterError: Ray did not take it.
    """
    client = job_client(dashboard)
    try:
        with quietly():
            client.submit_job(entrypoint=entrypoint, submission_id=id, runtime_env=runtime_env)
    except RaytricksError:
        raise
    except Exception as error:  # Ray hands on a traceback of the server as the text of a RuntimeError
        if "already exists" in str(error):
            raise used_id(id) from None
        raise ClusterError(f"{dashboard.address.url} did not take the job: {last_line(str(error))}") from None


def job_client(dashboard: Dashboard) -> Any:
    """Return Ray's own client, for a dashboard that has answered before.

    Raises:
        ClusterError: it cannot be reached any more.
    """
    prepare_authentication()
    # it prefers the environment to the address that it is given (Ray 2.60)
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = dashboard.address.url
    try:
        with quietly():
            from ray.job_submission import JobSubmissionClient

            return JobSubmissionClient(dashboard.address.url)
    except Exception as error:
        raise NoAnswer(f"{dashboard.address.url} cannot be used: {last_line(str(error))}") from None
    finally:
        if before is None:
            del os.environ["RAY_API_SERVER_ADDRESS"]
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Ray's notes on what it uploads and its deprecations out of the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def used_id(id: str, state: str = "") -> ClusterError:
    """Return the line for an id that the cluster knows already."""
    return ClusterError(f"--name: a job {id} is there already{state}; choose another name, or leave --name out")


def last_line(text: str) -> str:
    """Return the last line of a text that says something, such as that of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .\"'")]
    return lines[-1].rstrip(".") if lines else ""
