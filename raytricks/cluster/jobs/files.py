"""The files of a directory that travel with a job: never what is ignored, what can be made again, or secrets."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
import os
from pathlib import Path

from pathspec import GitIgnoreSpec

from raytricks.errors import ConfigError

IGNORE_FILES = (".gitignore", ".rayignore")
"""In this order: a .rayignore can take back with `!data/` what git does not keep."""

_MADE_AGAIN = (
    *(".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", "*.pyc", "*.egg-info", ".ray"),
    *(".ruff_cache", ".pytest_cache", ".mypy_cache", ".hypothesis", ".import_linter_cache", ".ipynb_checkpoints"),
    *(".tox", ".nox", ".DS_Store"),
)
_SECRET_FILES = (
    *(
        ".env",
        ".env.*",
        ".envrc",
        "*.env",
        "*.pem",
        "*.key",
        "*.p12",
        "*.pfx",
        "*.jks",
        "*.keystore",
        "*.ppk",
        "*.kdbx",
    ),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc", "_netrc", ".pypirc", ".npmrc", ".git-credentials"),
    *(".pgpass", ".my.cnf", ".htpasswd", ".dockercfg", "kubeconfig", "*.kubeconfig", "auth_token*", "*.token"),
    *("credentials*", "*credentials.json", "*secret*", "service-account*.json", "service_account*.json"),
)
_SECRET_DIRECTORIES = (
    *(".aws", ".ssh", ".gnupg", ".kube", ".docker", ".azure", ".gcloud", "gcloud", ".secrets", "secrets", "secret"),
)
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def is_made_again(name: str) -> bool:
    """Report caches, environments and version control by their name."""
    return any(fnmatchcase(name, pattern) for pattern in _MADE_AGAIN)


def is_made_again_directory(directory: Path) -> bool:
    """Report a virtual environment of any name, or the directory of a run or study of ours."""
    if (directory / "pyvenv.cfg").is_file():
        return True
    return (directory / "config.yaml").is_file() and (directory / "run.json").is_file()


def is_secret(name: str, *, is_directory: bool) -> bool:
    """Report what usually holds a password, key or token. Pictures do not, such as a class named secretary_bird."""
    name = name.lower()
    if is_directory:
        return name in _SECRET_DIRECTORIES
    return not name.endswith(_IMAGES) and any(fnmatchcase(name, pattern) for pattern in _SECRET_FILES)


class IgnoreRules:
    """The ignore files that hold for one directory: its own and those of the directories above it.

    Args:
        rules: each with the directory that its patterns are relative to, the outermost first.
    """

    def __init__(self, rules: Iterable[tuple[Path, GitIgnoreSpec]] = ()) -> None:
        self._rules = tuple(rules)

    @classmethod
    def above(cls, directory: Path) -> "IgnoreRules":
        """Return the rules of the git repository that a directory is in, as far as they are above it."""
        above = []
        for parent in directory.parents if not (directory / ".git").exists() else ():
            above.insert(0, parent)
            if (parent / ".git").exists():
                rules = cls()
                for place in above:
                    rules = rules.within(place, names=IGNORE_FILES[:1])
                return rules
        return cls()

    def within(self, directory: Path, names: Iterable[str] = IGNORE_FILES) -> "IgnoreRules":
        """Return these rules and those that a directory adds.

        Raises:
            ConfigError: an ignore file cannot be read or understood.
        """
        lines: list[str] = []
        for path in (directory / name for name in names):
            try:
                lines += path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path} cannot be read ({error}); repair it or take it away") from None
        if not lines:
            return self
        try:
            return IgnoreRules((*self._rules, (directory, GitIgnoreSpec.from_lines(lines))))
        except ValueError as error:
            raise ConfigError(f"{directory}: a pattern of its {' or '.join(names)} is wrong: {error}") from None

    def exclude(self, path: Path, *, is_directory: bool) -> bool:
        """Report whether a path is left out; the innermost file that names it decides."""
        for root, spec in reversed(self._rules):
            name = path.relative_to(root).as_posix() + ("/" if is_directory else "")
            included = spec.check_file(name).include
            if included is not None:
                return included
        return False


_MIB = 2**20
_SHOWN = 5


@dataclass
class JobFiles:
    """What travels and what does not.

    Attributes:
        directory: the working directory, absolute.
        sizes: bytes of each file that travels, by its path in the directory.
        secrets: left out because they look like secrets.
        links: left out because they lead out of the directory.
        num_ignored: files and directories left out for another reason.
    """

    directory: Path
    sizes: dict[Path, int] = field(default_factory=dict)
    secrets: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    num_ignored: int = 0

    @property
    def size_mib(self) -> float:
        return sum(self.sizes.values()) / _MIB

    def holds(self, path: Path) -> bool:
        """Report whether a file, or something in a directory, travels; `path` is relative to the directory."""
        return path in self.sizes or any(path in file.parents for file in self.sizes)

    def lines(self) -> list[str]:
        """Say what travels, and what looks like a secret or leads elsewhere and therefore does not."""
        left_out = f" ({self.num_ignored} ignored or made again, left out)" if self.num_ignored else ""
        count = f"{len(self.sizes)} file{'' if len(self.sizes) == 1 else 's'}"
        lines = [f"packed {count}, {self.size_mib:.1f} MiB{left_out}"]
        if self.secrets:
            lines.append(f"left out, look like secrets: {_some(self.secrets)}")
        if self.links:
            lines.append(f"left out, links that leave the directory: {_some(self.links)}")
        return lines


def choose_files(directory: Path, *, besides: Path | None = None) -> JobFiles:
    """Choose what travels with a job; reads no contents.

    Args:
        besides: a directory that travels on its own.

    Raises:
        ConfigError: no directory, or something in it cannot be read.
    """
    if not directory.is_dir():
        raise ConfigError(f"--working-dir: {directory} is no directory; name one, or leave it out for this one")
    files = JobFiles(directory.resolve())
    try:
        _Walk(files, besides).descend(files.directory, IgnoreRules.above(files.directory), frozenset())
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be packed ({error.strerror}); add it to .rayignore") from None
    return files


def require_size(files: JobFiles, limit_mib: int) -> None:
    """Refuse what is too large to travel, before anything is copied.

    Raises:
        ConfigError: more than `limit_mib`.
    """
    if files.size_mib <= limit_mib:
        return
    entries: Counter[str] = Counter()
    for path, size in files.sizes.items():
        entries[path.parts[0] + ("/" if len(path.parts) > 1 else "")] += size
    largest = ", ".join(f"{name} {size / _MIB:.1f}" for name, size in entries.most_common(3))
    raise ConfigError(
        f"{files.directory}: {files.size_mib:.1f} MiB to upload, the limit is {limit_mib} MiB (--max-upload-mib); the "
        f"largest, in MiB: {largest}; list what the job does not read in .rayignore, or put data on storage that all "
        "nodes see"
    )


class _Walk:
    """Fills JobFiles, one directory at a time."""

    def __init__(self, files: JobFiles, besides: Path | None) -> None:
        self.files, self.besides = files, besides

    def descend(self, directory: Path, rules: IgnoreRules, above: frozenset[Path]) -> None:
        """Add what a directory holds.

        Args:
            above: the real places of the directories above it; a link back to one of them has no end.
        """
        rules = rules.within(directory)
        above |= {directory.resolve()}
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda found: found.name):
                if entry.name not in IGNORE_FILES:  # they have done their work; Ray would read them again
                    self._add(entry, rules, above)

    def _add(self, entry: os.DirEntry, rules: IgnoreRules, above: frozenset[Path]) -> None:
        path = Path(entry.path)
        name = path.relative_to(self.files.directory)
        real = path.resolve() if entry.is_symlink() else path
        is_directory = real.is_dir()
        if is_made_again(entry.name) or rules.exclude(path, is_directory=is_directory):
            self.files.num_ignored += 1
        elif self._is_secret(path, real, is_directory):
            self.files.secrets.append(name)
        elif entry.is_symlink() and not real.is_relative_to(self.files.directory):
            self.files.links.append(name)
        elif is_directory and (is_made_again_directory(path) or real in above):
            self.files.num_ignored += 1
        elif is_directory and real != self.besides:
            self.descend(path, rules, above)
        elif real.is_file():
            self.files.sizes[name] = real.stat().st_size

    def _is_secret(self, path: Path, real: Path, is_directory: bool) -> bool:
        """A link is judged by what it leads to, too."""
        if any(is_secret(name, is_directory=is_directory) for name in (path.name, real.name)):
            return True
        if real == path or not real.is_relative_to(self.files.directory):
            return False
        return any(is_secret(part, is_directory=True) for part in real.relative_to(self.files.directory).parts[:-1])


def _some(paths: list[Path]) -> str:
    shown = ", ".join(map(str, paths[:_SHOWN]))
    return shown + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
