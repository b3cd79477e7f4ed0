"""Paths of a command that runs in a copy of the working directory, perhaps on another machine.

What the job reads must travel with it or lie where the cluster can see it; what it writes must outlive
the copy. On a cluster of this machine relative places are made absolute, elsewhere they are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
import os
from pathlib import Path
import shlex

from raytricks.cluster.jobs.command import JobCommand
from raytricks.cluster.jobs.files import JobFiles
from raytricks.config import ExperimentConfig
from raytricks.errors import ConfigError, DataError
from raytricks.parts.registry import library_of

_DATA, _OUTPUT = "data.path", "output_dir"
_NETWORK_FILE_SYSTEMS = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "lustre", "glusterfs", "gpfs", "beegfs"),
    *("afs", "orangefs", "pvfs2", "wekafs", "fuse"),
)
"""File systems that several machines usually see; fuse with anything behind its dot."""


@dataclass
class JobPaths:
    """Settles the paths of one command.

    Args:
        files: what travels.
        is_here: the whole cluster is this machine.
        check: refuse absolute paths that the cluster does not see: for one of this machine those that
            do not exist, for another those on this machine's own disks.
    """

    files: JobFiles
    is_here: bool
    check: bool = True
    _changed: list[tuple[str, str]] = field(default_factory=list)

    def settle(self, command: JobCommand, config: ExperimentConfig) -> JobCommand:
        """Return the command as the cluster has to run it.

        Args:
            config: of the command; only its paths are read.

        Raises:
            ConfigError: a place that would be lost, or a file that the job would not find.
            DataError: data that the job would not find.
        """
        self._changed = []
        command = replace(command, target=self._target(command.target, config))
        if command.resumed_dir is not None:
            return replace(command, resume=self._kept("--resume", command.resumed_dir, must_exist=True))
        self._data(config)
        self._own_parts(config)
        model, distillation = config.model, config.tricks.distillation
        teacher = distillation.teacher
        if teacher is not None and library_of(teacher) is None:
            self._read("tricks.distillation.teacher", teacher)
        self._read("tricks.distillation.teacher_weights", distillation.teacher_weights)
        self._read("model.init_from", model.init_from)
        self._write("tricks.distillation.cache_dir", distillation.cache_dir)
        self._write("data.cache_dir", config.data.cache_dir)
        self._tracker(config.logging.mlflow)
        self._write(_OUTPUT, config.output_dir)
        return command.with_settings(self._changed)

    # -- kinds of places -----------------------------------------------------------------------

    def _target(self, target: str | None, config: ExperimentConfig) -> str | None:
        """Return the target; a directory of images is checked as the data that it is."""
        if target is None or config.data.path == target or (self.is_here and _is_absolute(target)):
            return target
        if _is_absolute(target):
            inside = Path(target).expanduser()
            if not inside.is_relative_to(self.files.directory):
                raise ConfigError(f"{target} would not travel with the job; copy it into {self.files.directory}")
            target = str(inside.relative_to(self.files.directory))
        if reason := self._not_packed(target):
            raise ConfigError(f"{target} {reason}, and the job needs it; {self._how_to_pack(target)}")
        return target

    def _data(self, config: ExperimentConfig) -> None:
        path = config.data.path
        if path is None or "://" in path:
            return
        if not _is_absolute(path):
            if reason := self._not_packed(path):
                raise DataError(f"{_DATA}: {path} {reason}; {self._how_to_pack(path)}{self._in_full(path)}")
        elif problem := self._absolute_problem(path):
            raise DataError(f"{_DATA}: {path} {problem}{self._elsewhere(_DATA)}")

    def _own_parts(self, config: ExperimentConfig) -> None:
        """The files of the user's own parts travel with the job, below the directory that it is submitted from."""
        for part in config.brought:
            place = Path(part.origin.rpartition(":")[0])
            if part.sha256 is None:
                continue  # an installed package, which the job's own environment must have
            if not place.is_relative_to(self.files.directory.resolve()):
                raise ConfigError(f"{place} would not travel with the job; copy it into {self.files.directory}")
            inside = str(place.relative_to(self.files.directory.resolve()))
            if reason := self._not_packed(inside):
                raise ConfigError(f"{inside} {reason}, and the job needs it; {self._how_to_pack(inside)}")

    def _read(self, key: str, path: str | None) -> None:
        """Check a file or directory that the job reads, if there is one."""
        if path is None or "://" in path:
            return
        if _is_absolute(path):
            if problem := self._absolute_problem(path):
                raise ConfigError(f"{key}: {path} {problem}{self._elsewhere(key)}")
        elif reason := self._not_packed(path):
            if not self.is_here or not self._full(path).exists():
                raise ConfigError(f"{key}: {path} {reason}; {self._how_to_pack(path)}{self._elsewhere(key)}")
            self._changed.append((key, str(self._full(path))))

    def _write(self, key: str, path: str | None) -> None:
        """Keep what the job writes, such as runs or a cache, out of the copy that it runs in."""
        if path is not None and not _is_absolute(path):
            self._changed.append((key, self._kept(key, path)))

    def _kept(self, key: str, path: str, *, must_exist: bool = False) -> str:
        """Return a place that outlives the job, as an absolute path."""
        separator = " " if key.startswith("--") else "="
        if not _is_absolute(path):
            if not self.is_here:
                raise ConfigError(
                    f"{key}: {path} is relative, and the job runs in a copy of the directory on the cluster; name a "
                    f"directory that all nodes share, such as {key}{separator}/shared/{Path(path).name or 'runs'}"
                )
            path = str(self._full(path))
        if must_exist and (problem := self._absolute_problem(path)):
            raise ConfigError(f"{key}: {path} {problem}; name a directory that all nodes share")
        return path

    def _tracker(self, uri: str | None) -> None:
        """A tracking store in files is a place that is written to."""
        if uri is None:
            return
        scheme, colon, rest = uri.partition(":")
        prefix, path = ("", uri) if not colon else (f"{scheme}:", rest)
        if scheme == "sqlite" and rest.startswith("///"):
            prefix, path = "sqlite:///", rest[3:]
        elif colon and (scheme != "file" or rest.startswith("//")) or uri.startswith("databricks"):
            return
        if not _is_absolute(path):
            self._changed.append(("logging.mlflow", prefix + self._kept("logging.mlflow", path)))

    # -- what is known of a path ---------------------------------------------------------------

    def _not_packed(self, path: str) -> str | None:
        """Return why a relative path does not travel; None if it does."""
        inside = Path(os.path.normpath(path))
        if inside.parts[:1] == ("..",):
            return f"is outside of {self.files.directory}, which is what the job gets a copy of"
        if not self._full(path).exists():
            return f"does not exist in {self.files.directory}"
        if inside == Path() or self.files.holds(inside):
            return None
        for left_out, reason in (
            (self.files.links, "is a link that leaves the working directory, so it does not travel with the job"),
            (self.files.secrets, "looks like a secret, so it does not travel with the job"),
        ):
            if any(inside == name or name in inside.parents for name in left_out):
                return reason
        return "is left out of what travels with the job (ignored, empty, or the directory of a run)"

    def _absolute_problem(self, path: str) -> str | None:
        """Return why an absolute path cannot be read by the cluster, as far as can be known here."""
        place = Path(path).expanduser()
        if not self.check:
            return None
        if self.is_here:
            return None if place.exists() else "does not exist (--no-check submits anyway)"
        if place.exists() and not _is_shared(place):
            return "is on a disk of this machine, which the cluster does not see (--no-check submits anyway)"
        return None

    def _full(self, path: str) -> Path:
        return Path(os.path.normpath(self.files.directory / path))

    def _in_full(self, path: str) -> str:
        if not self.is_here:
            return self._elsewhere(_DATA)
        return f", or name it in full: {_DATA}={self._full(path)}" if self._full(path).exists() else ""

    def _how_to_pack(self, path: str) -> str:
        inside = Path(os.path.normpath(path))
        if inside.parts[:1] == ("..",) or not self._full(path).exists():
            return "name one that is in it"
        if self.files.directory.joinpath(inside).is_symlink():
            return "copy it here"
        return f"to send it, write !{shlex.quote(inside.as_posix())} into .rayignore"

    def _elsewhere(self, key: str) -> str:
        if self.is_here:
            return "" if key == _DATA else f", or name its full path: {key}=/..."
        url = ", or a URL" if key == _DATA else ""
        return f"; put it on storage that all nodes see and name that path{url}: {key}=..."


def _is_absolute(path: str) -> bool:
    return Path(path).is_absolute() or path.startswith("~")


def _is_shared(place: Path, read_mounts: Callable[[], str] = lambda: Path("/proc/mounts").read_text()) -> bool:
    """Report whether a path is on a file system that other machines usually see, too."""
    try:
        mounts = [line.split()[1:3] for line in read_mounts().splitlines()]
    except (OSError, ValueError):
        return False
    place = place.resolve()
    points = [(Path(point.encode().decode("unicode_escape")), kind) for point, kind in mounts]
    above = [(len(point.parts), order) for order, (point, _) in enumerate(points) if place.is_relative_to(point)]
    kind = points[max(above)[1]][1] if above else ""  # of two mounts on one place the later one is seen
    return kind.partition(".")[0] in _NETWORK_FILE_SYSTEMS
