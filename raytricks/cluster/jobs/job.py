"""Jobs of a cluster: what is known of them; ask for them, follow one, stop one."""

from collections.abc import Callable
from dataclasses import dataclass
import re
import signal
import time
from typing import Any
from urllib.parse import quote

from raytricks.cluster.jobs.address import find_address
from raytricks.cluster.jobs.client import job_client, last_line, quietly, used_id
from raytricks.cluster.jobs.dashboard import Dashboard, NoAnswer, Refusal
from raytricks.cluster.jobs.log import LogWriter, hand_on
from raytricks.errors import ClusterError, ConfigError
from raytricks.suggest import did_you_mean

PENDING, SUCCEEDED, FAILED, STOPPED = "PENDING", "SUCCEEDED", "FAILED", "STOPPED"
ENDS = (SUCCEEDED, FAILED, STOPPED)


@dataclass(frozen=True)
class JobInfo:
    """What a cluster says of a job.

    Attributes:
        status: PENDING, RUNNING or one of ENDS.
        message: of Ray, with the end of the log of a job that failed.
        exit_code: of its command, once it has ended.
        started_at: Unix time in s.
        ended_at: Unix time in s; None while it runs.
    """

    id: str
    status: str
    entrypoint: str
    message: str
    exit_code: int | None
    started_at: float | None
    ended_at: float | None

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "JobInfo":
        """Read an answer of the dashboard."""
        start, end = raw.get("start_time"), raw.get("end_time")
        return cls(
            id=raw.get("submission_id") or raw.get("job_id") or "",
            status=str(raw["status"]),
            entrypoint=raw.get("entrypoint") or "",
            message=raw.get("message") or "",
            exit_code=raw.get("driver_exit_code"),
            started_at=start / 1000 if start else None,
            ended_at=end / 1000 if end else None,
        )

    @property
    def is_over(self) -> bool:
        return self.status in ENDS

    @property
    def result(self) -> int:
        """The exit code that stands for the job: its command's own, 143 when it was stopped, else 1."""
        if self.status == STOPPED:
            return 128 + signal.SIGTERM
        if self.exit_code is not None:
            return 128 - self.exit_code if self.exit_code < 0 else self.exit_code
        return 0 if self.status == SUCCEEDED else 1

    @property
    def reason(self) -> str:
        """The last line of the message."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        return lines[-1] if lines else ""


STOP_LIMIT_S = 30.0
_POLL_S = 0.5
_AWAY_LIMIT_S = 120.0
"""How long a dashboard may not answer while a job is followed."""
_MOST_BREAKS = 3
"""Of the log's stream once the job is over: the log may be lost with its node."""
_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class Job:
    """A job of a cluster.

    Args:
        dashboard: of the cluster.
        id: its submission id.
        run_dir: where its run or study is written, if that is known.
    """

    def __init__(self, dashboard: Dashboard, id: str, run_dir: str | None = None) -> None:
        self.id, self.run_dir = id, run_dir
        self._dashboard = dashboard

    @classmethod
    def at(cls, address: str | None, id: str) -> "Job":
        """Return a job of the cluster at an address, None for the one that the environment names.

        Raises:
            ClusterError: no cluster answers there.
        """
        return cls(Dashboard.connect(find_address(address)), id)

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self._dashboard.address.url!r})"

    @property
    def url(self) -> str:
        """The page of the job in the dashboard."""
        return f"{self._dashboard.address.url}/#/jobs/{self.id}"

    @property
    def option(self) -> str:
        """What a next `raytricks jobs` needs to find the cluster: ` --address URL`, or nothing."""
        return self._dashboard.address.option

    def info(self) -> JobInfo:
        """Return what the cluster says of the job now.

        Raises:
            ClusterError: no such job, or no answer.
        """
        return JobInfo.parse(self._ask(self._dashboard.get, ""))

    def status(self) -> str:
        """Return PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        return self.info().status

    def logs(self) -> str:
        """Return what the job has printed so far."""
        return str(self._ask(self._dashboard.get, "/logs").get("logs") or "")

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end of the job.

        Returns:
            Its exit code; 143 if it was stopped, 1 if it failed before its command ran.

        Raises:
            ClusterError: not over within `timeout_s` (None: no limit), or the dashboard has gone.
        """
        started_s = time.monotonic()
        while not (info := self._patient_info()).is_over:
            if timeout_s is not None and time.monotonic() - started_s > timeout_s:
                raise ClusterError(f"job {self.id} is still {info.status} after {timeout_s:g} s")
            time.sleep(_POLL_S)
        return info.result

    def stop(self, timeout_s: float = STOP_LIMIT_S) -> bool:
        """Stop the job and wait until it has stopped: SIGTERM, and SIGKILL some seconds later.

        Returns:
            False if it was over already.

        Raises:
            ClusterError: no such job, or it is not over within `timeout_s`.
        """
        if self.info().is_over:
            return False
        self._ask(self._dashboard.post, "/stop")
        started_s = time.monotonic()
        while not (info := self._patient_info()).is_over:
            if time.monotonic() - started_s > timeout_s:
                why = " (Ray stops a job once its environment is made)" if info.status == PENDING else ""
                raise ClusterError(
                    f"job {self.id} is still {info.status}, {timeout_s:g} s after it was told to stop{why}; ask again "
                    f"with `raytricks jobs status {self.id}{self.option}`"
                )
            time.sleep(_POLL_S)
        return info.status == STOPPED

    def follow(self, write: Callable[[str], None]) -> JobInfo:
        """Hand on the log of the job, from its start to its end; a broken stream is taken up again.

        Not for a thread that runs an event loop, such as a notebook's: `wait` is.

        Raises:
            ClusterError: the dashboard has gone; the job may go on.
        """
        writer, num_breaks = LogWriter(write), 0
        while True:
            try:
                with quietly():
                    client = job_client(self._dashboard)
                    is_whole = hand_on(client, self.id, writer, lambda: self._patient_info().is_over)
            except NoAnswer:
                is_whole = False
            info = self._patient_info()
            if info.is_over:
                num_breaks += 1
                if is_whole or num_breaks == _MOST_BREAKS:
                    return info
            time.sleep(_POLL_S)

    def _patient_info(self) -> JobInfo:
        """Ask again while the dashboard does not answer."""
        started_s = time.monotonic()
        while True:
            try:
                return self.info()
            except NoAnswer as error:
                if time.monotonic() - started_s > _AWAY_LIMIT_S:
                    raise ClusterError(
                        f"{error}; job {self.id} may go on, ask for it with "
                        f"`raytricks jobs status {self.id}{self.option}`"
                    ) from None
                time.sleep(_POLL_S)

    def _ask(self, send: Callable[[str], Any], what: str) -> Any:
        try:
            return send(f"/api/jobs/{quote(self.id, safe='')}{what}")
        except Refusal as refusal:
            if refusal.status == 404:
                known = [info.id for info in list_jobs(self._dashboard)]
                hint = did_you_mean(self.id, known) or "; `raytricks jobs list` shows what there is"
                raise ClusterError(f"no job {self.id!r} at {self._dashboard.address.url}{hint}") from None
            raise ClusterError(f"job {self.id}: {last_line(refusal.text) or f'HTTP {refusal.status}'}") from None


def jobs_at(address: str | None) -> list[JobInfo]:
    """Return the jobs that were submitted to the cluster at an address, the newest first; see `Job.at`."""
    return list_jobs(Dashboard.connect(find_address(address)))


def list_jobs(dashboard: Dashboard) -> list[JobInfo]:
    """Return the jobs that were submitted to a cluster, the newest first."""
    try:
        found = [JobInfo.parse(raw) for raw in dashboard.get("/api/jobs/") if raw.get("submission_id")]
    except Refusal as refusal:
        raise ClusterError(
            f"{dashboard.address.url}: no list of jobs: {last_line(refusal.text) or f'HTTP {refusal.status}'}"
        ) from None
    return sorted(found, key=lambda info: info.started_at or 0.0, reverse=True)


def require_id(id: str) -> None:
    """Refuse an id that is no name of a run; raises ConfigError."""
    if not _ID.match(id):
        raise ConfigError(
            f"--name must be letters, digits, '.', '_' or '-', at most 100, with a letter or digit first, got {id!r}"
        )


def require_unused(dashboard: Dashboard, id: str) -> None:
    """Refuse an id that the cluster knows already; raises ClusterError."""
    for info in list_jobs(dashboard):
        if info.id == id:
            raise used_id(id, f", and is {info.status}")
