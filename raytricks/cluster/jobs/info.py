"""What a cluster says of a job."""

from dataclasses import dataclass
import signal
from typing import Any

from raytricks.errors import ClusterError

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


def used_id(id: str, state: str = "") -> ClusterError:
    """Return the line for an id that the cluster knows already."""
    return ClusterError(f"--name: a job {id} is there already{state}; choose another name, or leave --name out")


def last_line(text: str) -> str:
    """Return the last line of a text that says something, such as that of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .\"'")]
    return lines[-1].rstrip(".") if lines else ""
