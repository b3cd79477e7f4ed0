"""Every error that raytricks raises on purpose, and the exit code it ends a command with.

RaytricksError              1  a run failed (bug, non-finite loss, disk full)
    ConfigError             2  usage or configuration
    DataError               3  data missing, empty, corrupt or of the wrong classes
    ClusterError            4  Ray, its resources or its authentication
    CheckpointError         1  no valid checkpoint where one is needed
    NonFiniteError          1  the loss or the gradients became NaN or infinite
    NoGoodTrial             5  every trial of a search failed
    InterruptedRun    130/143  SIGINT or SIGTERM, after a checkpoint was written

A message is one line a problem: what, where, got, allowed, remedy.
"""

from collections.abc import Sequence
import signal as _signal


class RaytricksError(Exception):
    """A failure that the user should see as one line, without a traceback of ours.

    Args:
        message: the line.
        details: what is shown before it: the traceback of code that is not ours to mend.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class ConfigError(RaytricksError):
    """One or more problems in a config file, an override or the command line.

    Args:
        problems: one finished line per problem; all are shown together.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self):  # Exception pickles its args; ours are rebuilt from the list
        return type(self), (self.problems,)


class DataError(RaytricksError):
    """The images or labels cannot be used as they are."""

    exit_code = 3


class ClusterError(RaytricksError):
    """Ray, a cluster's resources or its authentication do not allow the run."""

    exit_code = 4


class CheckpointError(RaytricksError):
    """A checkpoint or a model file is missing, damaged or belongs to another run."""


class NonFiniteError(RaytricksError):
    """The loss, the gradients or the weights became NaN or infinite."""


class NoGoodTrial(RaytricksError):
    """A search ended without a trial that finished."""

    exit_code = 5


class InterruptedRun(RaytricksError):
    """The run was stopped by a signal and can be resumed.

    Args:
        message: what was saved and how to resume.
        signal_number: SIGINT or SIGTERM; the exit code is 128 + this.
    """

    def __init__(self, message: str, signal_number: int = _signal.SIGINT) -> None:
        super().__init__(message)
        self.signal_number = int(signal_number)
        self.exit_code = 128 + self.signal_number

    def __reduce__(self):
        return type(self), (str(self), self.signal_number)
