"""A command that is to run as a job, taken apart so that its settings can be changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

SUBMITTABLE = ("train", "tune")
RESUME_AUTO = "auto"
"""Goes on with the run of the same name, or starts it."""


@dataclass(frozen=True)
class JobCommand:
    """One of SUBMITTABLE with its arguments.

    Attributes:
        target: a config file or a directory of images.
        settings: `key=value`.
        resume: RUN_DIR, STUDY_DIR or RESUME_AUTO.
        options: all others, as they were written.
    """

    name: str
    target: str | None = None
    settings: tuple[str, ...] = ()
    resume: str | None = None
    options: tuple[str, ...] = ()

    @property
    def resumed_dir(self) -> str | None:
        """The directory of the run or study that goes on, if it is named, and so is its config."""
        return None if self.resume == RESUME_AUTO else self.resume

    def words(self) -> list[str]:
        """Return the command line after `raytricks`."""
        resume = [] if self.resume is None else ["--resume", self.resume]
        target = [] if self.target is None else [self.target]
        return [self.name, *self.options, *resume, *target, *self.settings]

    def with_settings(self, values: Sequence[tuple[str, str]]) -> "JobCommand":
        """Return the command with settings added, or changed where it has them."""
        changed = {key for key, _ in values}
        kept = [setting for setting in self.settings if setting.partition("=")[0].strip() not in changed]
        return replace(self, settings=(*kept, *(f"{key}={value}" for key, value in values)))
