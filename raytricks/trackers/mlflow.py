"""MLflow: what metrics.jsonl is given, to a server or a local store. mlflow is imported when a run begins."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
import json
import os
from pathlib import Path
import time
from typing import Any

from raytricks.config import ExperimentConfig
from raytricks.config.keys import leaves
from raytricks.parts.hooks import Hooks
from raytricks.trackers.tracked_run import keep_id, known_id, tracked_name

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SEND_AT_ONCE = 1000  # MLflow takes no more metrics in a request, and a tenth as many parameters
_MOST_UNSENT = 100_000
_END_WAIT_S = 60


class MlflowTracker:
    """Sends to an MLflow server or local store from a thread of its own: training never waits for it.

    What cannot be sent is kept and tried again with the next record.

    Args:
        uri: where to; credentials are MLFLOW_TRACKING_USERNAME's and _PASSWORD's.
    """

    name = "mlflow"

    def __init__(self, uri: str, run_dir: Path, config: ExperimentConfig) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # minutes of its retries would only delay the end:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # what fails is sent again here
        if "://" not in uri or uri.startswith("file:"):
            # new versions want to be asked twice for such a store
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
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
        found_id = known_id(self._run_dir, self.name, self._uri)
        name, study = tracked_name(self._run_dir)
        if found_id is None:
            tags = {} if study is None else {"study": study}
            run = client.create_run(self._experiment_id(client), tags=tags, run_name=name)
            keep_id(self._run_dir, self.name, self._uri, run.info.run_id)
        else:
            run = client.get_run(found_id)
            client.update_run(found_id, status="RUNNING")
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


def problems(settings: str) -> Iterator[str]:
    """Say which packages a store needs that are not there."""
    scheme = settings.partition(":")[0].partition("+")[0]
    missing = [p for p in ("sqlalchemy", "alembic") if scheme in _DATABASES and find_spec(p) is None]
    if missing:
        yield f"logging.mlflow: a {scheme} store needs {' and '.join(missing)}; pip install sqlalchemy alembic"


def absolute_uri(settings: str) -> str:
    """Return a tracking URI that means the same files in any directory; others as they are."""
    scheme, colon, rest = settings.partition(":")
    if scheme == "sqlite" and rest.startswith("///"):
        return f"sqlite:///{_absolute(rest[3:])}"
    if scheme == "file" and not rest.startswith("//"):
        return f"file:{_absolute(rest)}"
    return settings if colon or settings.startswith("databricks") else _absolute(settings)


def _track(run_dir: Path, config: ExperimentConfig, settings: str) -> MlflowTracker:
    return MlflowTracker(settings, run_dir, config)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


HOOKS = Hooks(problems=problems, track=_track, absolute=absolute_uri)
