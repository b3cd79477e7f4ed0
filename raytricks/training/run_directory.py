"""The directory of a run: made once, never reused by accident.

config.yaml   the resolved config; `raytricks train RUN/config.yaml` repeats the run
run.json      versions, seed, command, git commit, host, devices, data and recipe
metrics.jsonl, tb/, checkpoints/, model.safetensors, model_best.safetensors, answers.safetensors, model.json, log.txt
.launch       the newest launch's mark; .has-saved: checkpoints must be there
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
import hashlib
import importlib.metadata
from itertools import chain, count
import json
from pathlib import Path
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from typing import Any

from raytricks.config import ExperimentConfig, dump_yaml, flatten, load_config
from raytricks.config.run_code import require_same_code
from raytricks.data.splits import DatasetSplits
from raytricks.errors import CheckpointError, ConfigError, DataError
from raytricks.files import write_atomically
from raytricks.limits import usable_cpus
from raytricks.parts.registry import library_of
from raytricks.training.auto_micro_batch import LIMITS_FILE
from raytricks.training.records import METRICS_FILE, read_records
from raytricks.training.run_files import CHECKPOINTS, MODEL_FILE
from raytricks.training.trackers import with_absolute_places
from raytricks.version import __version__

CONFIG_FILE, RUN_FILE, LOG_FILE = "config.yaml", "run.json", "log.txt"
_PACKAGES = ("ray", "torch", "torchvision", "numpy", "pyarrow", "pydantic", "pillow", "safetensors")
RESUMABLE_SECTIONS = ("workers", "hardware.", "checkpoint.", "logging.")
"""What a resumed run may change: how the recipe is carried out, not the recipe."""
_PLACES = ("output_dir", "data.path", "data.cache", "tricks.distillation.cache_dir")
"""Where things lie: a job that is submitted again finds its files elsewhere. Data must be the same, see below."""
_NOT_RECIPE = (*RESUMABLE_SECTIONS, *_PLACES)


def named_run_directory(config: ExperimentConfig) -> Path:
    """Return the directory of a run that has a name.

    Raises:
        ConfigError: it has none.
    """
    if config.name is None:
        raise ConfigError("--resume auto goes on with the run of the same name, and name is not set; add name=NAME")
    return Path(config.output_dir).expanduser() / config.name


def create_run_directory(config: ExperimentConfig, data_name: str) -> Path:
    """Make the directory of a new run.

    Raises:
        ConfigError: it exists, or it cannot be made.
    """
    now = f"{data_name}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    # two runs may begin in the same second
    names = [config.name] if config.name else chain([now], (f"{now}-{number}" for number in count(2)))
    run_dir = Path()
    for name in names:
        run_dir = named_run_directory(config.model_copy(update={"name": name}))
        if run_dir.exists():
            continue
        try:
            run_dir.parent.mkdir(parents=True, exist_ok=True)
            run_dir.mkdir()
            return run_dir
        except OSError as error:
            raise ConfigError(
                f"{run_dir} cannot be made ({error.strerror}); set output_dir to a writable place"
            ) from None
    raise ConfigError(_already_there(run_dir))


def write_config(run_dir: Path, config: ExperimentConfig) -> None:
    """Save a config with absolute paths, so that it can be run from anywhere."""
    write_atomically(run_dir / CONFIG_FILE, dump_yaml(config).encode())


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """Return a config whose files are found from any directory, as Ray's workers must."""
    data, model, distillation = config.data, config.model, config.tricks.distillation
    data = data.model_copy(update={"path": _absolute(data.path), "cache_dir": _absolute(data.cache_dir)})
    model = model.model_copy(update={"init_from": _absolute(model.init_from)})
    teacher = distillation.teacher
    paths = {
        "teacher": teacher if library_of(teacher) is not None else _absolute(teacher),
        "teacher_weights": _absolute(distillation.teacher_weights),
        "cache_dir": _absolute(distillation.cache_dir),
    }
    tricks = config.tricks.model_copy(update={"distillation": distillation.model_copy(update=paths)})
    config = with_absolute_places(config)
    return config.model_copy(update={"data": data, "model": model, "tricks": tricks})


def _absolute(path: str | None) -> str | None:
    return path if path is None or "://" in path else str(Path(path).expanduser().resolve())


def write_run_file(run_dir: Path, facts: dict[str, Any]) -> None:
    """Save what the run was made of; a resumed run adds a launch to the list."""
    path = run_dir / RUN_FILE
    previous = json.loads(path.read_text()) if path.is_file() else {"launches": []}
    launch = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": sys.argv,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "num_cpus": usable_cpus(),
        "versions": {"raytricks": __version__} | {p: _version(p) for p in _PACKAGES},
        "git": _git_state(),
        **facts.pop("launch", {}),
    }
    content = previous | facts | {"launches": [*previous["launches"], launch]}
    write_atomically(path, json.dumps(content, indent=1).encode())


def data_fingerprint(splits: DatasetSplits) -> dict[str, Any]:
    """Describe a data set so that a resume can tell whether it is still the same."""
    return {
        "class_names": list(splits.class_names),
        "num_train": len(splits.train),
        "num_evaluation": len(splits.evaluation),
        "labels_sha256": hashlib.sha256(splits.train.labels.tobytes()).hexdigest(),
    }


def open_run_to_resume(
    run_dir: Path, overrides: Sequence[str] | Mapping[str, Any], accept_changed: Collection[str] = ()
) -> ExperimentConfig:
    """Read the config of an unfinished run.

    Args:
        overrides: dotted settings; only those that leave the recipe as it is are allowed.
        accept_changed: names of parts of the user's own that may have changed.

    Raises:
        ConfigError: no run, a finished run, or an override that would change the recipe.
    """
    if not (run_dir / CONFIG_FILE).is_file():
        raise ConfigError(f"{run_dir} is not a run directory (no {CONFIG_FILE}){_meant_run(run_dir)}")
    if is_finished(run_dir):
        raise ConfigError(f"{run_dir} is finished ({progress_of(run_dir)}); start a new run to train further")
    changed = load_config(run_dir / CONFIG_FILE, overrides, accept_changed=accept_changed, of_run=True).config
    require_same_recipe(run_dir, changed, accept_changed)
    require_same_code(run_dir, changed.brought, accept_changed)
    return changed


def is_finished(run_dir: Path) -> bool:
    """Return whether a run has nothing left to do."""
    return (run_dir / MODEL_FILE).is_file()


def require_same_recipe(run_dir: Path, config: ExperimentConfig, accept_changed: Collection[str] = ()) -> None:
    """Refuse a config whose recipe is not that of the run in a directory.

    Args:
        config: resolved, with absolute paths.
        accept_changed: names of parts of the user's own that may have changed.

    Raises:
        ConfigError: no run, or one line a setting that differs and must not.
    """
    if not (run_dir / CONFIG_FILE).is_file():
        raise ConfigError(f"{run_dir} is there, and no run (no {CONFIG_FILE}); choose another name")
    saved = load_config(run_dir / CONFIG_FILE, accept_changed=accept_changed, of_run=True).config
    before, after = flatten(saved), flatten(config)
    refused = [key for key in before if before[key] != after[key] and not key.startswith(_NOT_RECIPE)]
    if refused:
        raise ConfigError(
            [
                f"{key}: cannot change from {before[key]!r} to {after[key]!r} when a run is resumed; only workers, "
                "hardware, checkpoint and logging can; start a new run"
                for key in refused
            ]
        )


def require_same_data(run_dir: Path, splits: DatasetSplits) -> None:
    """Refuse to resume on other data; names what differs."""
    path = run_dir / RUN_FILE
    try:
        saved = json.loads(path.read_text())["data"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{path} is missing or damaged; it is needed to check the data; start a new run"
        ) from None
    now = data_fingerprint(splits)
    differing = [
        f"{key} was {_short(saved.get(key))}, is {_short(now[key])}" for key in now if saved.get(key) != now[key]
    ]
    if differing:
        raise DataError(f"the data of {run_dir} has changed: {'; '.join(differing)}; restore it or start a new run")


def progress_of(run_dir: Path) -> str:
    """Say how far a run is, such as "12 of 120 epochs"."""
    epochs = [r["epoch"] for r in read_records(run_dir / METRICS_FILE) if r["kind"] == "epoch"]
    try:
        total = json.loads((run_dir / RUN_FILE).read_text())["recipe"]["epochs"]
    except (OSError, ValueError, KeyError, TypeError):
        return "not a run"
    return f"{max(epochs, default=0)} of {total} epochs"


def remove_unbegun_run(run_dir: Path) -> None:
    """Remove a run's directory that a kill in its first moments has left: none of its files tells of any training."""

    def is_of_beginning(path: Path) -> bool:
        is_empty_folder = path.is_dir() and not any(path.iterdir())
        return is_empty_folder or path.name in (CONFIG_FILE, RUN_FILE, LOG_FILE, ".launch") or path.name[:5] == ".tmp-"

    if run_dir.is_dir() and all(is_of_beginning(path) for path in run_dir.iterdir()):
        shutil.rmtree(run_dir)


def remove_if_empty_run(run_dir: Path, *, with_parent: bool) -> None:
    """Take away the directory of a run that failed before it trained or found out anything.

    Args:
        with_parent: also the directory of runs, when it is empty; a user's own, perhaps a mount point, stays.
    """
    has_work = any((run_dir / name).exists() for name in (CHECKPOINTS, LIMITS_FILE)) or read_records(
        run_dir / METRICS_FILE
    )
    if not has_work:
        shutil.rmtree(run_dir, ignore_errors=True)
        if with_parent:
            with suppress(OSError):  # other runs are in it by now
                run_dir.parent.rmdir()


def _already_there(run_dir: Path) -> str:
    can_go_on = (run_dir / CONFIG_FILE).is_file() and not (run_dir / MODEL_FILE).is_file()
    resume = f", or go on with `raytricks train --resume {shlex.quote(str(run_dir))}`" if can_go_on else ""
    return f"{run_dir} exists ({progress_of(run_dir)}); choose another name{resume}"


def _meant_run(path: Path) -> str:
    """Return what to name instead of something inside a run, or beside one."""
    inside = next((p for p in path.parents if (p / CONFIG_FILE).is_file() and (p / RUN_FILE).is_file()), None)
    if inside is not None:
        return f"; did you mean {inside}?"
    folder = path if path.is_dir() else path.parent
    runs = sorted((p.parent for p in folder.glob(f"*/{RUN_FILE}")), key=lambda p: p.stat().st_mtime)
    return f"; the newest run there is {runs[-1]}" if runs else "; name one that holds a run"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Return commit and cleanliness of the current directory's repository, if it is one."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
