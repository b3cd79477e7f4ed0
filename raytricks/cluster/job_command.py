"""A command that is to run as a job, taken apart so that its settings can be changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

SUBMITTABLE = ("train", "tune")


@dataclass(frozen=True)
class JobCommand:
    """One of SUBMITTABLE with its arguments.

    Attributes:
        target: a config file or a directory of images.
        settings: `key=value`.
        resume: RUN_DIR or STUDY_DIR.
        options: all others, as they were written.
    """

    name: str
    target: str | None = None
    settings: tuple[str, ...] = ()
    resume: str | None = None
    options: tuple[str, ...] = ()

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
