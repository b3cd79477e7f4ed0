"""What a check of the environment found, and what to do about it."""

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class CheckResult:
    """One line of `raytricks check`.

    Attributes:
        subject: what was looked at, such as "shared memory".
        status: FAIL is what a run would stop at, or what lets strangers in.
        found: what is there.
        remedy: what to do about it; None when nothing has to be done.
    """

    subject: str
    status: Status
    found: str
    remedy: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the plain values, for JSON."""
        return {"check": self.subject, "status": self.status, "found": self.found, "remedy": self.remedy}


def ok(subject: str, found: str) -> CheckResult:
    """Return the result of a check with nothing to do."""
    return CheckResult(subject, "ok", found)


def warn(subject: str, found: str, remedy: str) -> CheckResult:
    """Return the result of a check after which a run may go wrong or be slow."""
    return CheckResult(subject, "warn", found, remedy)


def fail(subject: str, found: str, remedy: str) -> CheckResult:
    """Return the result of a check after which a run cannot go well."""
    return CheckResult(subject, "FAIL", found, remedy)
