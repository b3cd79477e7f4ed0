"""Parts of the user's own: found by file, by installed package or by entry point, and read once.

    FILE.py:NAME          one file; the bytes that are hashed are the bytes that run
    package.module:NAME   of an installed distribution
    NAME                  an entry point in the group `raytricks.parts`, imported when it is named

Only the user's own command or config may name code; `raytricks.parts.trust` keeps the configs of others' runs out.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
import hashlib
from importlib import import_module, metadata
from importlib.util import find_spec
import linecache
from pathlib import Path
import re
import socket
import sys
import traceback
from types import ModuleType
from typing import Any

from raytricks.errors import ClusterError, ConfigError
from raytricks.parts.hooks import OFFERED, HookError
from raytricks.parts.part import Kind, Part
from raytricks.parts.registry import named, of_kind
from raytricks.parts.signatures import row_of
from raytricks.suggest import did_you_mean

ENTRY_POINTS = "raytricks.parts"
_LIBRARIES = tuple(row.name for row in of_kind("model") if row.name.endswith(":"))
_SPEC = re.compile(r"(.+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.DOTALL)
_given: dict[str, bytes] = {}
"""Contents by absolute path that were hashed before, here or by another process: see `given_files`."""
_read: dict[str, bytes] = {}
"""Contents of the files that were executed, by sha256."""
_executed: dict[str, str] = {}
"""sha256 of the bytes of a path that were executed last."""
_objects: dict[str, Any] = {}
"""Python objects that the caller of this process has handed over, by spec."""
_rows: dict[tuple[str, str, str], Part] = {}


@dataclass(frozen=True)
class Brought:
    """What a run must know of code that is not raytricks'.

    Attributes:
        spec: as a config has it, with an absolute path.
        sha256: of the file; None for a package.
        version: of the package's distribution, or the hash of a module that belongs to none; None for a file.
    """

    name: str
    kind: str
    spec: str
    sha256: str | None = None
    version: str | None = None

    @property
    def fingerprint(self) -> str:
        """What must be equal for it to be the same code."""
        return self.sha256 or f"version {self.version}"

    @property
    def short_fingerprint(self) -> str:
        """The same, for messages."""
        return self.sha256[:12] if self.sha256 else self.fingerprint

    @property
    def short_name(self) -> str:
        """The file's or the module's name, for messages."""
        return Path(self.spec.rpartition(":")[0]).name


def is_spec(value: object) -> bool:
    """Return whether a name in a config means code: a file or a module, and not a model of a library."""
    return isinstance(value, str) and not value.startswith(_LIBRARIES) and _SPEC.fullmatch(value) is not None


def absolute_spec(spec: str, base: Path) -> str:
    """Return a spec that means the same from any directory."""
    place, _, name = spec.rpartition(":")
    if not place:
        return _entry_points().get(spec, spec)
    return f"{(base / Path(place).expanduser()).resolve()}:{name}" if place.endswith(".py") else spec


def bring_row(key: str, spec: str) -> Part:
    """Return the row that `parts: {key: spec}` names, under that key.

    Args:
        spec: absolute.

    Raises:
        ConfigError: one line, without its place: what is missing or wrong, and the remedy.
    """
    if ":" not in spec:
        hint = did_you_mean(spec, _entry_points()) or ";"
        raise ConfigError(f"no installed package has {spec!r} in {ENTRY_POINTS}{hint} or write FILE.py:NAME")
    found = _load(spec)
    if not isinstance(found, Part):
        raise ConfigError(
            f"{spec.rpartition(':')[2]} is a {type(found).__name__}, not a Part; name it directly, such as "
            f"model.name={Path(spec).name}, or make a row of it"
        )
    row = replace(found, name=key, origin=spec)
    if named(row.kind, key) is not None:
        raise ConfigError("built in; choose another name")
    return _known(row)


def bring_callable(kind: Kind, spec: str) -> Part:
    """Return a row for a function or class that a config names directly; its settings are its parameters.

    Args:
        spec: absolute; it is the row's name.

    Raises:
        ConfigError: as of `bring_row`.
    """
    found = _load(spec)
    if isinstance(found, Part):
        return _known(replace(found, name=spec, origin=spec))
    if not callable(found):
        raise ConfigError(f"{spec} is a {type(found).__name__}; name a function or a class")
    with _one_line(spec):
        return _known(row_of(kind, spec, found))


def _known(row: Part) -> Part:
    """Return the row made before of the same code: schemas are kept by the identity of their rows."""
    place = row.origin.rpartition(":")[0]
    sha256 = _executed.get(place)
    if sha256 is None and place.endswith(".py"):  # an object that was handed over: its file was not executed here
        sha256 = hashlib.sha256(_content(place)).hexdigest()
    return _rows.setdefault((row.kind, row.name, f"{row.origin} {sha256}"), replace(row, sha256=sha256))


def hand_over(spec: str, value: Any) -> None:
    """Have a spec mean an object of this process, which need not be read again."""
    _objects[spec] = value


def describe(rows: Iterable[Part]) -> tuple[Brought, ...]:
    """Return what a run must know of the rows that are not raytricks' own."""
    described: list[Brought] = []
    for row in rows:
        version = _version(row.origin.partition(":")[0]) if row.sha256 is None else None
        described.append(Brought(row.name, row.kind, row.origin, row.sha256, version))
    return tuple(described)


def fingerprinted(part: Brought) -> Brought | None:
    """Return a part as it is on this machine now, importing nothing; None where it is not there."""
    place = part.spec.rpartition(":")[0]
    if not place.endswith(".py"):
        return replace(part, sha256=None, version=_version(place))
    try:
        return replace(part, sha256=hashlib.sha256(_content(place)).hexdigest(), version=None)
    except ConfigError:
        return None


def files_of(rows: Iterable[Part]) -> dict[str, bytes]:
    """Return the content of the files that rows are from, by absolute path."""
    return {row.origin.rpartition(":")[0]: _read[row.sha256] for row in rows if row.sha256 is not None}


def content_of(part: Brought) -> dict[str, bytes]:
    """Return the file of a part by its path, as it was when it was fingerprinted; nothing for a package."""
    return {} if part.sha256 is None else {part.spec.rpartition(":")[0]: _read[part.sha256]}


@contextmanager
def given_files(files: Mapping[str, bytes]) -> Generator[None]:
    """Import these contents in place of what lies at their paths, which may have changed since they were hashed.

    Afterwards the paths mean their files again: what is edited then is read anew.
    """
    before = dict(_given)
    _given.update(files)
    try:
        yield
    finally:
        _given.clear()
        _given.update(before)


def versions_of(rows: Iterable[Part]) -> dict[str, str | None]:
    """Return the versions of the packages that rows are from, by spec."""
    return {part.spec: part.version for part in describe(rows) if part.sha256 is None}


def require_versions(versions: Mapping[str, str | None]) -> None:
    """Refuse to import other code than the process that the run was started from; nothing is imported.

    Raises:
        ClusterError: a package has another version here.
    """
    for spec, wanted in versions.items():
        package = spec.rpartition(":")[0]
        found = _version(package)
        if found != wanted:
            raise ClusterError(
                f"{package} is {_shown(found)} on {socket.gethostname()} and {_shown(wanted)} where the run was "
                "started; install the same on every node"
            )


def _shown(version: str | None) -> str:
    return version or "not installed"


def _entry_points() -> dict[str, str]:
    """Return what installed packages offer, name -> module:NAME; imports none of them."""
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}


def _load(spec: str) -> Any:
    if spec in _objects:
        return _objects[spec]
    place, _, name = spec.rpartition(":")
    with _one_line(spec):
        module = _module_of_file(place) if place.endswith(".py") else _module_of_package(place)
    try:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part)
        return found
    except AttributeError:
        public = [known for known in vars(module) if not known.startswith("_")]
        hint = did_you_mean(name, public) or ";"
        raise ConfigError(f"no {name} in {Path(place).name}{hint}".removesuffix(";")) from None


def _module_of_package(name: str) -> ModuleType:
    root = name.partition(".")[0]
    if root in sys.stdlib_module_names:
        raise ConfigError(f"{name} is Python's own module, no part of it is a part of raytricks")
    return import_module(name)


def _module_of_file(place: str) -> ModuleType:
    """Execute the bytes of a file, once a content, as a module of its own."""
    content = _content(place)
    _executed[place] = hashlib.sha256(content).hexdigest()
    name = f"raytricks_parts_{hashlib.sha256(place.encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = place
    linecache.cache[place] = (len(content), None, content.decode(errors="replace").splitlines(True), place)
    sys.modules[name] = module
    try:
        exec(compile(content, place, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _content(place: str) -> bytes:
    try:
        content = _given[place] if place in _given else Path(place).read_bytes()
    except OSError:
        raise ConfigError(f"no file {_near(place)}; paths start at the config") from None
    return _read.setdefault(hashlib.sha256(content).hexdigest(), content)


def _near(place: str) -> str:
    """Return a path as a person would write it from here."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place


def _version(module: str) -> str | None:
    """Return the version of a module's distribution, or the hash of its source where it belongs to none."""
    distributions = metadata.packages_distributions().get(module.partition(".")[0], [])
    if distributions:
        return metadata.version(distributions[0])
    source = _source_of(module)
    return None if source is None else f"source {hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"


def _source_of(module: str) -> Path | None:
    """Return the file of a module, importing neither it nor the packages that it is in."""
    root, *inner = module.split(".")
    try:
        found = find_spec(root)
    except ValueError:  # a module that was made by hand
        return None
    if found is None:
        return None
    files = [Path(found.origin)] if found.origin and not inner else []
    for folder in found.submodule_search_locations or () if inner else ():
        place = Path(folder, *inner)
        files += [place / "__init__.py", place.with_name(f"{place.name}.py")]
    return next((file for file in files if file.is_file()), None)


class _one_line:  # noqa: N801 (a context manager, used like a function)
    """Turns whatever the user's code raises into one line with its place in the user's file."""

    def __init__(self, spec: str) -> None:
        self._place = spec.rpartition(":")[0]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, ConfigError) or not isinstance(error, Exception):
            return
        raise ConfigError(self._line(error)) from error

    def _line(self, error: Exception) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == self._place]
        line = own[-1].lineno if own else None
        unknown = re.search(r"Hooks.*unexpected keyword argument '(\w+)'", str(error))
        if unknown is not None:
            what = f"Hooks has no slot {unknown[1]}{did_you_mean(unknown[1], OFFERED)}"
        elif isinstance(error, HookError):
            code = getattr(error.function, "__code__", None)
            line = code.co_firstlineno if code is not None and code.co_filename == self._place else line
            what = str(error)
        elif isinstance(error, SyntaxError):
            line, what = error.lineno, f"is no Python: {error.msg}"
        elif isinstance(error, ModuleNotFoundError):
            what = f"needs {error.name}, not installed"
            if not own:
                return f"no module {error.name}; install it, or write FILE.py:NAME"
        else:
            what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        place = f"{Path(self._place).name}:{line}" if line else self._place
        return f"{place} {what}" if isinstance(error, ModuleNotFoundError | SyntaxError) else f"{place}: {what}"


def spec_of(value: Callable[..., Any]) -> str:
    """Return the spec of a Python object that a caller hands over; it means that object in this process.

    Raises:
        ConfigError: another process could not find it: it is a lambda, or stands inside a function.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if module is None or not name or "<" in name:
        raise ConfigError(f"{value!r} cannot be found by name; define it at the top of a file or module")
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if module == "__main__" and file is None:
        raise ConfigError(
            f"{name} is defined in an interactive session, where no other process finds it; put it in a file"
        )
    is_file = module == "__main__" or module.startswith("raytricks_parts_") or "." not in module
    spec = f"{Path(file).resolve()}:{name}" if file is not None and is_file else f"{module}:{name}"
    hand_over(spec, value)
    return spec
