"""Submit a command: checked here first, then packed, then started on a cluster."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
import secrets
import shlex

from raytricks.cluster.jobs.address import JobAddress, find_address, is_here, is_literal
from raytricks.cluster.jobs.client import submit_job
from raytricks.cluster.jobs.command import RESUME_AUTO, JobCommand
from raytricks.cluster.jobs.dashboard import Dashboard, is_on_this_machine, python_of_ray
from raytricks.cluster.jobs.files import JobFiles, choose_files, require_size
from raytricks.cluster.jobs.job import Job, require_id, require_unused
from raytricks.cluster.jobs.package import PACKAGE, packed, pip_requirements
from raytricks.cluster.jobs.paths import JobPaths
from raytricks.config import ExperimentConfig, load_config
from raytricks.errors import ConfigError
from raytricks.recipe.chain import settings_of, trackers_of

UPLOAD_LIMIT_MIB = 100
LARGEST_UPLOAD_MIB = 511
"""Ray takes packages of less than 512 MiB (GCS_STORAGE_MAX_SIZE, Ray 2.60)."""


def submit_command(
    command: JobCommand,
    *,
    address: str | None = None,
    name: str | None = None,
    working_dir: str | Path = ".",
    pip: bool = False,
    max_upload_mib: int = UPLOAD_LIMIT_MIB,
    check: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Job:
    """Start a command on a cluster, in a copy of a directory; arguments as of `raytricks.submit`.

    Args:
        say: given each line for the user.

    Raises:
        ConfigError: the command would fail at once, or its files would be lost or not be found.
        DataError: its data would not be found.
        ClusterError: the cluster does not answer, or does not take the job.
    """
    directory = Path(working_dir).expanduser()
    if name is not None:
        require_id(name)
    config = load_command(command, directory)
    if command.resume == RESUME_AUTO and config.name is None:
        raise ConfigError("--resume auto goes on with the run of the same name, and name is not set; add name=NAME")
    files = choose_files(directory, besides=PACKAGE)
    found = find_address(address)
    _check_paths(command, config, files, found, check)
    require_size(files, max_upload_mib)
    dashboard = Dashboard.connect(found)
    nodes = dashboard.nodes()
    id = name or f"{command.name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    require_unused(dashboard, id)
    settled = JobPaths(files, is_on_this_machine(dashboard, nodes), check).settle(command, config)
    settled, run_dir = _named(settled, config, id)
    # -P: a directory named raytricks in the working directory is not imported in the place of ours
    words = ["python" if pip else python_of_ray(nodes), "-P", "-m", "raytricks", *settled.words()]
    requirements = pip_requirements(config, dashboard.ray_version) if pip else []
    for line in [*files.lines(), *_advice(config)]:
        say(line)
    with packed(files, requirements) as environment:
        submit_job(dashboard, id, shlex.join(words), environment)
    job = Job(dashboard, id, run_dir)
    say(f"job {id}, writes {run_dir}")
    say(job.url)
    return job


def load_command(command: JobCommand, directory: Path) -> ExperimentConfig:
    """Load the config of a command that runs in a directory.

    Raises:
        ConfigError: every problem of the config, or there is none to load.
    """
    target, settings, resume = command.target, command.settings, command.resumed_dir
    if resume is not None:
        if target is not None:
            raise ConfigError(f"--resume {resume} takes its config from the run; leave {target} out")
        saved = directory / Path(resume).expanduser() / "config.yaml"
        return load_config(saved, settings, of_run=True).config if saved.is_file() else _load_alone(settings, None)
    if target is None and not settings:
        raise ConfigError(
            f"nothing to {command.name}; name a config file or a directory of images "
            f"(try: raytricks submit -- {command.name} configs/digits.yaml)"
        )
    if target is None or Path(target).suffix in (".yaml", ".yml"):
        return load_config(None if target is None else directory / Path(target).expanduser(), settings).config
    place = directory / Path(target).expanduser()
    return load_config(place, settings).config if place.is_file() else _load_alone(settings, target)


def _load_alone(settings: tuple[str, ...], data: str | None) -> ExperimentConfig:
    """Check the settings of a run whose other settings are chosen, or read, on the cluster."""
    place: dict[str, object] = {} if data is None else {"data.path": data}
    # as raytricks.api does: a warmup that is yet to be chosen is no conflict with few epochs
    return load_config(None, settings, place | {"tricks.warmup.epochs": 0.0}, "the directory given").config


def _check_paths(
    command: JobCommand, config: ExperimentConfig, files: JobFiles, address: JobAddress, check: bool
) -> None:
    """Refuse before any contact what no cluster could run.

    An address that looks local may be a tunnel, so what must exist here is not known yet; a name that
    has to be looked up may take long.
    """
    if is_literal(address.host):
        looks_local = is_here(address.host)
        JobPaths(files, looks_local, check and not looks_local).settle(command, config)


def _named(command: JobCommand, config: ExperimentConfig, id: str) -> tuple[JobCommand, str]:
    """Name the run, so that its directory is known beforehand; returns the command and that directory."""
    if command.resumed_dir is not None:
        return command, command.resumed_dir
    if config.name is None:
        command = command.with_settings([("name", id)])
    places = [setting.partition("=")[2] for setting in command.settings if setting.startswith("output_dir=")]
    return command, f"{places[-1] if places else config.output_dir}/{config.name or id}"


def _advice(config: ExperimentConfig) -> list[str]:
    """Name what the trackers read from the environment of the nodes."""
    rows = [row for row in trackers_of(config) if not _is_on_disk(settings_of(config, row))]
    names = [name for row in rows for name in row.secrets]
    advice = "nothing of your environment is sent; set on the cluster's nodes what the tracker wants of: "
    return [f"{advice}{', '.join(names)}"] if names else []


def _is_on_disk(place: object) -> bool:
    """Say whether a tracker's place is a store in files, which asks for no key."""
    return isinstance(place, str) and place.startswith(("file:", "sqlite:", "/", ".", "~"))
