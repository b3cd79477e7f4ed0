"""MLflow and Weights & Biases, both optional: they are given what metrics.jsonl is given.

The first worker's RecordWriter feeds them, so a run in one process, on Ray or in a study is tracked
alike. RUN/trackers.json keeps their ids: a run that is resumed goes on as the same one. Steps that
a resumed run repeats are sent again, and the later values are the run's.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
import json
import os
from pathlib import Path
import secrets
from threading import Lock
import time
from typing import Any, Protocol

from raytricks.config import ExperimentConfig
from raytricks.config.keys import leaves
from raytricks.config.schema import LoggingConfig
from raytricks.errors import ConfigError
from raytricks.files import write_atomically

IDS_FILE = "trackers.json"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_TRIAL_FOLDERS = {"trials": "", "retrain": "retrain-"}
_SEND_AT_ONCE = 1000  # MLflow takes no more metrics in a request, and a tenth as many parameters
_MOST_UNSENT = 100_000
_END_WAIT_S = 60
_IDS_LOCK = Lock()  # MLflow's id comes from its thread


class Tracker(Protocol):
    """Somewhere that a run's numbers go besides its files. Any method may raise anything.

    Attributes:
        name: its key in the section `logging`.
    """

    name: str

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one record."""

    def close(self, ok: bool) -> None:
        """Send what is left; `ok` says that the run is finished."""


def require_trackers(logging: LoggingConfig) -> None:
    """Check that what the config switches on is installed; imports none of it.

    Raises:
        ConfigError: a package is missing.
    """
    wanted = {"mlflow": logging.mlflow, "wandb": logging.wandb}
    problems = [
        f"logging.{name}: {name} is not installed; pip install 'raytricks[{name}]'"
        for name, value in wanted.items()
        if value is not None and not _is_installed(name)
    ]
    scheme = (logging.mlflow or "").partition(":")[0].partition("+")[0]
    missing = [p for p in ("sqlalchemy", "alembic") if scheme in _DATABASES and not _is_installed(p)]
    if missing:
        problems.append(
            f"logging.mlflow: a {scheme} store needs {' and '.join(missing)}; pip install sqlalchemy alembic"
        )
    if problems:
        raise ConfigError(problems)


def open_trackers(run_dir: Path, config: ExperimentConfig) -> tuple[list[Tracker], list[str]]:
    """Begin or continue the run in every tracker that is switched on.

    Returns:
        The trackers, and a line for each that cannot be used: none of them stops a run.
    """
    trackers, problems = [], []
    wanted = {"mlflow": (MlflowTracker, config.logging.mlflow), "wandb": (WandbTracker, config.logging.wandb)}
    for name, (kind, place) in wanted.items():
        if place is None:
            continue
        try:
            trackers.append(kind(place, run_dir, config))
        except Exception as error:  # whatever a library raises
            problems.append(describe_failure(name, error))
    return trackers, problems


def describe_failure(name: str, error: Exception) -> str:
    """Return one line for what a tracker raised, without the keys that the environment holds."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        reason = reason.replace(secret, "***")
    return f"logging.{name}: {reason[:300]}; the run goes on and metrics.jsonl has everything"


def absolute_uri(uri: str) -> str:
    """Return a tracking URI that means the same files in any directory; others as they are."""
    scheme, colon, rest = uri.partition(":")
    if scheme == "sqlite" and rest.startswith("///"):
        return f"sqlite:///{_absolute(rest[3:])}"
    if scheme == "file" and not rest.startswith("//"):
        return f"file:{_absolute(rest)}"
    return uri if colon or uri.startswith("databricks") else _absolute(uri)


def tracked_name(run_dir: Path) -> tuple[str, str | None]:
    """Return a run's name in a tracker and, for the run of a study, the study's."""
    folder = run_dir.absolute().parent
    if run_dir.name.isdecimal() and folder.name in _TRIAL_FOLDERS:
        study = folder.parent.name
        return f"{study}-{_TRIAL_FOLDERS[folder.name]}{run_dir.name}", study
    return run_dir.absolute().name, None


class MlflowTracker:
    """Sends to an MLflow server or local store from a thread of its own: training never waits for it.

    What cannot be sent is kept and tried again with the next record.

    Args:
        uri: where to; credentials are MLFLOW_TRACKING_USERNAME's and _PASSWORD's.
    """

    name = "mlflow"

    def __init__(self, uri: str, run_dir: Path, config: ExperimentConfig) -> None:
        _set_default("MLFLOW_DISABLE_TELEMETRY", "true")
        _set_default("MLFLOW_LOGGING_LEVEL", "WARNING")
        _set_default("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # minutes of its retries would only delay the end:
        _set_default("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # what fails is sent again here
        if "://" not in uri or uri.startswith("file:"):
            _set_default("MLFLOW_ALLOW_FILE_STORE", "true")  # new versions want to be asked twice for such a store
        self._mlflow, self._entities = import_module("mlflow"), import_module("mlflow.entities")
        self._uri, self._run_dir, self._config = uri, run_dir, config
        self._client: Any = None
        self._run_id = ""
        self._unsent: deque[Any] = deque(maxlen=_MOST_UNSENT)
        self._thread = ThreadPoolExecutor(1, "mlflow")
        self._sending: Future[None] = self._thread.submit(self._send)

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one record; raises what the previous attempt to send failed with."""
        now_ms = int(time.time() * 1000)
        self._unsent += [self._entities.Metric(f"{kind}/{n}", float(v), now_ms, step) for n, v in values.items()]
        if self._sending.done():
            failure = self._sending.exception()
            self._sending = self._thread.submit(self._send)
            if failure is not None:
                raise failure

    def close(self, ok: bool) -> None:
        """Send what is left, for a minute at most, and say how the run ended."""
        ending = self._thread.submit(self._end, "FINISHED" if ok else "KILLED")
        self._thread.shutdown(wait=False)
        ending.result(_END_WAIT_S)

    def _end(self, status: str) -> None:
        self._send()
        self._client.set_terminated(self._run_id, status)

    def _send(self) -> None:
        if self._client is None:
            self._client = self._open()
        while self._unsent:
            batch = [self._unsent[i] for i in range(min(len(self._unsent), _SEND_AT_ONCE))]
            self._client.log_batch(self._run_id, metrics=batch)
            for _ in batch:
                self._unsent.popleft()

    def _open(self) -> Any:
        client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        known_id = _known_id(self._run_dir, self.name, self._uri)
        name, study = tracked_name(self._run_dir)
        if known_id is None:
            tags = {} if study is None else {"study": study}
            run = client.create_run(self._experiment_id(client), tags=tags, run_name=name)
            _keep_id(self._run_dir, self.name, self._uri, run.info.run_id)
        else:
            run = client.get_run(known_id)
            client.update_run(known_id, status="RUNNING")
        self._run_id = run.info.run_id
        params = [  # one that a resume has changed cannot be changed there
            self._entities.Param(key, value if isinstance(value, str) else json.dumps(value))
            for key, value in leaves(self._config.model_dump(mode="json"))
            if key not in run.data.params
        ]
        for start in range(0, len(params), _SEND_AT_ONCE // 10):
            client.log_batch(self._run_id, params=params[start : start + _SEND_AT_ONCE // 10])
        return client

    def _experiment_id(self, client: Any) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "raytricks"
        found = client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        try:
            return client.create_experiment(name)
        except self._mlflow.MlflowException:  # another trial of the study was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
            return found.experiment_id


class WandbTracker:
    """Sends to Weights & Biases through its own process; WANDB_MODE=offline keeps all in RUN/wandb.

    Args:
        project: of the run.

    Raises:
        RuntimeError: there is no API key; wandb would ask for one and wait.
    """

    name = "wandb"

    def __init__(self, project: str, run_dir: Path, config: ExperimentConfig) -> None:
        if os.environ.get("WANDB_MODE") == "offline":  # its process, of which there is one, logs in the cache
            _set_default("WANDB_CACHE_DIR", str(run_dir.absolute() / "wandb" / "cache"))
        wandb = import_module("wandb")
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise RuntimeError("no API key; set WANDB_API_KEY, or WANDB_MODE=offline")
        run_id = _known_id(run_dir, self.name, project)
        if run_id is None:
            run_id = secrets.token_hex(8)
            _keep_id(run_dir, self.name, project, run_id)
        name, study = tracked_name(run_dir)
        self._run = wandb.init(
            project=project,
            name=name,
            group=study,
            id=run_id,
            resume="allow",
            reinit="create_new",  # neither a run of the caller's nor of another trial in this process
            dir=str(run_dir.absolute()),
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, init_timeout=30),
        )
        self._run.define_metric("*", step_metric="step")  # wandb's own step never goes back

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one record."""
        self._run.log({f"{kind}/{name}": value for name, value in values.items()} | {"step": step})

    def close(self, ok: bool) -> None:
        """Send what is left and say how the run ended."""
        self._run.finish(exit_code=0 if ok else 255)  # 255: wandb's own for a run that was stopped


def _known_id(run_dir: Path, name: str, place: str) -> str | None:
    """Return the id of the run in a tracker; None where it has none, as at a place that a resume has changed to."""
    entry = _read_ids(run_dir).get(name, {})
    return entry["id"] if entry.get("place") == place else None


def _keep_id(run_dir: Path, name: str, place: str, run_id: str) -> None:
    with _IDS_LOCK:
        content = _read_ids(run_dir) | {name: {"place": place, "id": run_id}}
        write_atomically(run_dir / IDS_FILE, json.dumps(content, indent=1).encode())


def _read_ids(run_dir: Path) -> dict[str, dict[str, str]]:
    path = run_dir / IDS_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def _is_installed(package: str) -> bool:
    """Say whether a package is there; a mere folder of that name, such as wandb makes, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _set_default(variable: str, value: str) -> None:
    os.environ.setdefault(variable, value)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
