"""What ended a worker, which failures are not tried again, and what the user is told."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
import re
import socket
import traceback

from ray.train import UserCallback

from raytricks.errors import RaytricksError
from raytricks.training.auto_micro_batch import HalvedBatch

_LOST_PEER = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out|by peer", re.IGNORECASE)
"""What the other workers of a group say when one has died."""


@dataclass(frozen=True, kw_only=True)
class FailureFacts:
    """What is known of a failure.

    Attributes:
        reason: one line, such as "ValueError: no such class".
        place: such as "in step 33", or "".
        trace: the traceback as text.
        is_halved: out of memory, and the next start takes fewer images at once.
        error: set for what no restart can mend; shown to the user as it is.
    """

    rank: int
    host: str
    reason: str
    place: str
    trace: str
    error: RaytricksError | None
    is_halved: bool = False

    @property
    def is_lost_peer(self) -> bool:
        """Whether it only says that another worker is gone."""
        return self.error is None and _LOST_PEER.search(self.reason) is not None


class WorkerFailure(Exception):
    """Ends a worker; carries its `facts` to the controller and the driver."""

    def __init__(self, facts: FailureFacts) -> None:
        super().__init__(facts)
        self.facts = facts

    def __str__(self) -> str:
        return f"worker {self.facts.rank} on {self.facts.host}: {self.facts.reason}\n{self.facts.trace}"

    @classmethod
    def of(cls, error: BaseException, rank: int) -> "WorkerFailure":
        """Describe an exception, inside the worker that it was raised in."""
        lines = str(error).strip().splitlines()
        facts = FailureFacts(
            rank=rank,
            host=socket.gethostname(),
            reason=f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__,
            place="".join(getattr(error, "__notes__", [])),
            trace="".join(traceback.format_exception(error)),
            error=error if isinstance(error, RaytricksError) else None,
            is_halved=isinstance(error, HalvedBatch),
        )
        return cls(facts)


class StopRepeatedFailures(UserCallback):
    """Ends a run whose failure came before, at the same step, that no restart can mend, or that is not to be counted.

    Ray Train calls it in the controller, each time it finds workers that have failed.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def after_exception(self, run_context, worker_exceptions: dict[int, Exception]) -> None:
        """Raise the failure again, which Ray Train does not retry."""
        facts = worker_facts(worker_exceptions.values())
        for one in facts:
            if one.error is not None or one.is_halved or (one.reason, one.place) in self._seen:
                raise WorkerFailure(one)
        self._seen = {(one.reason, one.place) for one in facts if not one.is_lost_peer}


def worker_facts(errors: Iterable[BaseException | None]) -> list[FailureFacts]:
    """Return what workers have told of their failures: what cannot be mended first, then by rank."""
    found = [error.facts for error in errors if isinstance(error, WorkerFailure)]
    return sorted(found, key=lambda facts: (facts.error is None, facts.is_lost_peer, facts.rank))


def is_halved(error: BaseException) -> bool:
    """Return whether what ended a `fit()` is a batch that did not fit at once, and that the next start halves."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", None) or {}
    told = worker_facts([getattr(error, "controller_failure", None), *failures.values()])
    return any(facts.is_halved for facts in told) and not any(facts.error for facts in told)


def as_raytricks_error(error: BaseException, run_dir: Path) -> RaytricksError:
    """Return what the user is told of what ended a `fit()`."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", None) or {}
    repeated = getattr(error, "controller_failure", None)
    facts = worker_facts([repeated, *failures.values()])
    if facts and facts[0].error is not None:
        return facts[0].error
    if facts and not facts[0].is_lost_peer:
        first = facts[0]
        again = "failed twice" if isinstance(repeated, WorkerFailure) else "failed"
        message = f"{run_dir}: worker {first.rank} on {first.host} {again} {first.place}".rstrip()
        return RaytricksError(f"{message}: {first.reason}", details=first.trace)
    dead = [rank for rank, failure in sorted(failures.items()) if not isinstance(failure, WorkerFailure)]
    return RaytricksError(f"{run_dir}: {_of_dead(dead, failures) if dead else _last_line(error)}")


def _of_dead(ranks: list[int], failures: dict[int, BaseException]) -> str:
    who = f"worker{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
    return (
        f"{who} died once more than hardware.max_restarts allows ({_last_line(failures[ranks[0]])}); the newest "
        "checkpoint is kept"
    )


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
