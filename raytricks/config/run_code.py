"""The code that a run was made with: kept beside it, compared when it goes on, imported only when it is trusted.

RUN/run.json     "parts": name, kind, spec, sha256 or version of each part that is not raytricks' own
RUN/parts/       the files, by their sha256
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
import hashlib
import json
from pathlib import Path
import shlex

from raytricks.config.part_sections import with_own
from raytricks.config.schema import ModelConfig
from raytricks.errors import ConfigError
from raytricks.parts.bring import (
    Brought,
    bring_callable,
    bring_row,
    content_of,
    describe,
    files_of,
    fingerprinted,
    given_files,
)
from raytricks.parts.part import Part
from raytricks.parts.trust import are_trusted, trust

RUN_FILE, KEPT = "run.json", "parts"
_SAVED = (RUN_FILE, "study.json", "metrics.jsonl")
"""What lies beside the config of a run or study; whoever made it may have left one out, to have it taken as yours."""


def keep_code(run_dir: Path, rows: Iterable[Part]) -> list[dict[str, object]]:
    """Keep the files of the user's own parts in a run, trust them, and return what run.json says of them."""
    rows = tuple(rows)
    for content in files_of(rows).values():
        path = run_dir / KEPT / f"{hashlib.sha256(content).hexdigest()}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    parts = describe(rows)
    trust(parts)
    return [asdict(part) for part in parts]


def parts_of_run(run_dir: Path) -> list[Brought]:
    """Return what a run says of the parts that it was made with; nothing is imported."""
    try:
        described = json.loads((run_dir / RUN_FILE).read_text()).get("parts", [])
        return [Brought(**part) for part in described]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def is_of_run(config_file: Path) -> bool:
    """Return whether a config was left by a run or study, and is not one of the user's own."""
    return any((config_file.parent / name).exists() for name in _SAVED)


def require_trusted(config_file: Path, specs: Sequence[str], accepted: Collection[str] = ()) -> dict[str, bytes]:
    """Refuse to import what a run's config.yaml names, unless this user has started the run or trusts it.

    What counts is the file that would be imported, not what the run says of it.

    Args:
        accepted: names of parts of a trusted run that may have changed since.

    Returns:
        The files that were looked at, by path. These bytes are to be imported, whatever lies there by then.

    Raises:
        ConfigError: a line for each part, with the remedy; nothing was imported.
    """
    run_dir = config_file.parent
    recorded = {part.spec: part for part in parts_of_run(run_dir)}
    problems: list[str] = []
    looked_at: dict[str, bytes] = {}
    for spec in specs:
        before = recorded.get(spec) or Brought(spec, "", spec)
        now = fingerprinted(before)
        if now is None:
            continue  # the loader says that it is gone
        looked_at |= content_of(now)
        if are_trusted([now]):
            continue
        if not (run_dir / RUN_FILE).is_file():
            problems.append(
                f"{config_file}: names code ({before.short_name}), and the {RUN_FILE} that says which is missing; get "
                "the run again, whole"
            )
        elif not are_trusted([before]):
            problems.append(
                f"{config_file}: names code ({before.short_name}), which runs only once it is trusted; read it, then "
                f"`raytricks trust {shlex.quote(str(run_dir))}`"
            )
        elif not {before.name, before.name.rpartition(":")[2]} & set(accepted):
            problems.append(_changed(run_dir, before, now))
    if problems:
        raise ConfigError(problems)
    return looked_at


def _changed(run_dir: Path, before: Brought | None, now: Brought | None) -> str:
    if before is None or now is None:
        change = "is new" if before is None else "is missing"
    else:
        change = f"changed ({before.short_fingerprint} -> {now.short_fingerprint})"
    part = now or before
    assert part is not None
    key = part.name if ":" not in part.name else part.name.rpartition(":")[2]
    return f"--resume {run_dir}: {part.short_name} {change}; restore it or --accept-changed {key}"


def model_section(metadata: Mapping[str, str], model_file: Path, *, trust_code: bool) -> type[ModelConfig]:
    """Return the section that a model file's description is of; imports the model's own code once it is trusted.

    Args:
        metadata: of the file; "parts" says what code it was made with.
        model_file: the code is taken from beside it, where a run keeps it, else from where it was.

    Raises:
        ConfigError: the code is not trusted, is gone or has changed; nothing was imported.
    """
    try:
        parts = [Brought(**part) for part in json.loads(metadata.get("parts", "[]"))]
    except (ValueError, TypeError):
        raise ConfigError(f"{model_file}: what it says of its code is damaged; get the file again") from None
    if not parts:
        return ModelConfig
    (part,) = parts
    if not trust_code and not are_trusted(parts):
        raise ConfigError(
            f"{model_file}: is a model of somebody's own code ({part.short_name}), which runs only once it is trusted; "
            f"read it, then `raytricks trust {shlex.quote(str(model_file.parent))}` or load it with trust_code=True"
        )
    kept = model_file.parent / KEPT / f"{part.sha256}.py"
    place = part.spec.rpartition(":")[0]
    if part.kind != "model" or (part.sha256 is not None) != place.endswith(".py"):
        # a trusted file's hash beside the name of a package, which would be imported in its place
        raise ConfigError(f"{model_file}: what it says of its code is damaged; get the file again")
    files: dict[str, bytes] = {}
    if part.sha256 is not None:
        source = kept if kept.is_file() else Path(place)
        content = source.read_bytes() if source.is_file() else b""
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise ConfigError(f"{model_file}: {part.short_name} is gone or has changed; put it back to {kept}")
        files[place] = content
    with given_files(files):
        is_row = part.name != part.spec
        row = bring_row(part.name, part.spec) if is_row else bring_callable("model", part.spec)
    return with_own(ModelConfig, "name", row)


def require_same_code(run_dir: Path, rows: Iterable[Part], accepted: Collection[str] = ()) -> None:
    """Refuse to go on with other code than a run was made with.

    Args:
        accepted: names of parts that may have changed.

    Raises:
        ConfigError: a line for each part that is new, missing or changed.
    """
    before = {part.name: part for part in parts_of_run(run_dir)}
    now = {part.name: part for part in describe(rows)}
    problems: list[str] = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        is_same = old is not None and new is not None and old.fingerprint == new.fingerprint
        if not is_same and not {name, name.rpartition(":")[2]} & set(accepted):
            problems.append(_changed(run_dir, old, new))
    if problems:
        raise ConfigError(problems)


def accepted_code(run_dir: Path, rows: Iterable[Part], accepted: Collection[str]) -> dict[str, str]:
    """Return which accepted parts differ from what a run was made with so far: name -> the fingerprint until now."""
    before = {part.name: part.fingerprint for part in parts_of_run(run_dir)}
    return {
        part.name: before.get(part.name, "none")
        for part in describe(rows)
        if {part.name, part.name.rpartition(":")[2]} & set(accepted) and before.get(part.name) != part.fingerprint
    }


def trust_run(run_dir: Path) -> list[Brought]:
    """Trust the code that a run names, as it is kept in the run; returns it.

    Raises:
        ConfigError: no run, one that names no code, or whose kept files are not what it says.
    """
    parts = parts_of_run(run_dir)
    if not parts:
        raise ConfigError(f"{run_dir} names no code of its own; there is nothing to trust")
    for part in parts:
        path = run_dir / KEPT / f"{part.sha256}.py"
        if part.sha256 and (not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != part.sha256):
            raise ConfigError(f"{path} is missing or is not what {run_dir / RUN_FILE} says; get the run again")
    trust(parts)
    return parts
