"""The runtime environment of a job: copies of the chosen files and of this raytricks, and what pip installs."""

from collections.abc import Iterator
from contextlib import contextmanager
import importlib.metadata
from pathlib import Path
import re
import shutil
import tempfile
from typing import Any

from raytricks.cluster.jobs.files import JobFiles
from raytricks.config import ExperimentConfig
from raytricks.errors import ClusterError, ConfigError
from raytricks.parts.registry import library_of
from raytricks.recipe.chain import trackers_of

PACKAGE = Path(__file__).resolve().parents[2]
"""The raytricks that runs here, which the job takes along."""


@contextmanager
def packed(files: JobFiles, requirements: list[str]) -> Iterator[dict[str, Any]]:
    """Copy what travels into a temporary directory; yields Ray's runtime_env, which must be used while entered.

    Args:
        requirements: what pip installs on the nodes; empty for nothing.

    Raises:
        ConfigError: a file cannot be copied.
    """
    with tempfile.TemporaryDirectory(prefix="raytricks-job-") as temporary:
        working_dir = Path(temporary) / "files"
        working_dir.mkdir()
        try:
            for name in files.sizes:
                copy = working_dir / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(files.directory / name, copy)
            module = shutil.copytree(
                PACKAGE, Path(temporary) / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        except OSError as error:  # shutil.Error has a list instead of a reason
            raise ConfigError(f"cannot pack {error.filename or files.directory}: {error.strerror or error}") from None
        environment: dict[str, Any] = {"working_dir": str(working_dir), "py_modules": [str(module)]}
        yield environment | ({"pip": requirements} if requirements else {})


def pip_requirements(config: ExperimentConfig, ray_version: str) -> list[str]:
    """Return what raytricks needs on a node, with the extras that a config uses.

    Ray itself stays as it is on the cluster; only what its libraries need is added.

    Raises:
        ClusterError: this raytricks was not installed, so its requirements are not known.
    """
    try:
        found = importlib.metadata.requires(PACKAGE.name) or []
    except importlib.metadata.PackageNotFoundError:
        raise ClusterError(
            "--pip: raytricks is not installed here, so its requirements are unknown; pip install it"
        ) from None
    extras, wanted = used_extras(config), []
    for requirement in found:
        text, _, marker = requirement.partition(";")
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", marker)
        if extra is None or extra[1] in extras:
            is_ray = re.match(r"ray\b", text) is not None
            wanted.append(f"ray[train,tune]=={ray_version}" if is_ray else text.strip())
    return list(dict.fromkeys(wanted))


def used_extras(config: ExperimentConfig) -> set[str]:
    """Return the extras of raytricks that a config cannot do without."""
    libraries = [library_of(name) for name in (config.model.name, config.tricks.distillation.teacher)]
    used = {row.extra for row in (*filter(None, libraries), *trackers_of(config)) if row.extra}
    used |= {"simplejpeg"} if config.data.decoder == "simplejpeg" else set()
    return used | ({"optuna"} if config.tune.sampler == "optuna" else set())
