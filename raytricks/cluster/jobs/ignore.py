"""What never travels with a job: what .gitignore and .rayignore say, what can be made again, and secrets."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
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
