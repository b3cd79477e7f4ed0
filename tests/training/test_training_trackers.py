"""MLflow and Weights & Biases are given what metrics.jsonl is given, and can neither stop a run nor leak a key."""

import json
import math
import os
from pathlib import Path
import struct
import subprocess
import sys

import pytest

from raytricks.api import train
from raytricks.config import ExperimentConfig, flatten, load_config
from raytricks.config.schema import LoggingConfig
from raytricks.errors import ConfigError
from raytricks.trackers import mlflow as mlflow_tracker
from raytricks.trackers.mlflow import absolute_uri
from raytricks.trackers.tracked_run import tracked_name
from raytricks.training import trackers as tracking
from raytricks.training.records import METRICS_FILE, RecordWriter, read_records
from raytricks.training.trackers import open_trackers, require_trackers

KEY = "0123456789abcdef0123456789abcdef01234567"
FROM_MLFLOW = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # sqlalchemy's, of MLflow's models; protobuf's
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # MLflow's, of its file store
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sqlite connections that MLflow leaves open
]


class FlakyTracker:
    """Fails at the given steps and at the end."""

    name = "mlflow"

    def __init__(self, *bad_steps: int) -> None:
        self.bad_steps, self.taken, self.ended = bad_steps, [], None

    def log(self, kind, step, values):
        if step in self.bad_steps:
            raise OSError(f"no route to host\nwith key {KEY}")
        self.taken.append((kind, step, dict(values)))

    def close(self, ok):
        self.ended = ok
        raise OSError("again")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Bring back what trackers set, and let no retry take seconds."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_LOGGING_LEVEL", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def config_with(**logging) -> ExperimentConfig:
    return ExperimentConfig(logging=LoggingConfig(**logging))


def track(run_dir: Path, config: ExperimentConfig, steps, *, ok: bool = True, scale: float = 1.0) -> None:
    """Write records as a launch of a run does."""
    run_dir.mkdir(parents=True, exist_ok=True)
    opened, problems = open_trackers(run_dir, config)
    assert problems == []
    writer = RecordWriter(run_dir, tensorboard=False, purge_step=0, trackers=opened)
    for step in steps:
        writer.write("step", step=step, epoch=1, objective=scale / step, grad_norm=math.inf, lr=0.1)
    writer.write("note", step=steps[-1], epoch=1, text="no number")
    writer.write("epoch", step=steps[-1], epoch=1, val_top1=0.1 + 0.2)
    writer.close(ok)


def numbers_of(run_dir: Path) -> dict[tuple[str, int], float]:
    """Return the latest number of each name and step in metrics.jsonl."""
    return {
        (f"{record['kind']}/{name}", record["step"]): value
        for record in read_records(run_dir / METRICS_FILE)
        for name, value in record.items()
        if name not in ("kind", "step", "epoch") and isinstance(value, (int, float))
    }


def notes_of(run_dir: Path) -> list[str]:
    return [r["text"] for r in read_records(run_dir / METRICS_FILE) if r["kind"] == "note" and r["text"] != "no number"]


# -- MLflow ---------------------------------------------------------------------------------


def store_uri(kind: str, folder: Path) -> str:
    if kind == "sqlite":
        pytest.importorskip("sqlalchemy")
        pytest.importorskip("alembic")
        return f"sqlite:///{folder}/mlflow.db"
    return f"file:{folder}/mlruns"


def mlflow_runs(uri: str) -> list:
    client = pytest.importorskip("mlflow").MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("raytricks")
    return client.search_runs([experiment.experiment_id])


def mlflow_numbers(uri: str, run) -> dict[tuple[str, int], float]:
    """Return the latest number of each name and step."""
    client = pytest.importorskip("mlflow").MlflowClient(tracking_uri=uri)
    history = [(m.timestamp, m) for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)]
    return {(m.key, m.step): m.value for _, m in sorted(history, key=lambda item: item[0])}


def with_mlflow(test):
    for mark in FROM_MLFLOW:
        test = mark(test)
    return test


@with_mlflow
@pytest.mark.parametrize("kind", ["file", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_mlflow_holds_the_numbers_and_the_config_of_the_run(tmp_path, kind):
    pytest.importorskip("mlflow")
    uri, run_dir = store_uri(kind, tmp_path), tmp_path / "cats"
    config = config_with(mlflow=uri)
    track(run_dir, config, range(1, 6))
    (run,) = mlflow_runs(uri)
    assert mlflow_numbers(uri, run) == numbers_of(run_dir)
    assert numbers_of(run_dir)["epoch/val_top1", 5] == 0.1 + 0.2
    assert (run.info.run_name, run.info.status) == ("cats", "FINISHED")
    params = run.data.params
    assert params["recipe.base_lr"] == "0.1" and params["data.path"] == "null" and params["logging.mlflow"] == uri
    assert params["data.crop_scale"] == "[0.08, 1.0]"
    assert {key for key in flatten(config) if not key.startswith("tune.")} <= set(params)
    assert notes_of(run_dir) == []


@with_mlflow
def test_mlflow_resumed_run_is_one_run_and_its_repeated_steps_count(tmp_path):
    pytest.importorskip("mlflow")
    uri, run_dir = store_uri("file", tmp_path), tmp_path / "cats"
    track(run_dir, config_with(mlflow=uri), range(1, 6), ok=False)
    (before,) = mlflow_runs(uri)
    resumed = config_with(mlflow=uri).model_copy(update={"workers": 2})  # MLflow's parameters never change
    track(run_dir, resumed, range(4, 9), scale=3.0)
    (run,) = mlflow_runs(uri)
    assert run.info.run_id == before.info.run_id
    assert (before.info.status, run.info.status) == ("KILLED", "FINISHED")
    assert run.data.params["workers"] == "0"
    numbers = mlflow_numbers(uri, run)
    assert numbers == numbers_of(run_dir) and numbers["step/objective", 5] == 3 / 5
    assert notes_of(run_dir) == []


@with_mlflow
def test_mlflow_follows_a_run_that_is_trained(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    overrides = ["data.source=digits", "model.name=resnet8", "model.width=8", "tricks.warmup.epochs=0", "workers=0"]
    overrides += ["recipe.epochs=2", f"output_dir={tmp_path}", "logging.tensorboard=false", "logging.mlflow=file:store"]
    result = train(None, [*overrides, "name=cats", "hardware.device=cpu"])
    uri = f"file:{tmp_path.resolve()}/store"
    (run,) = mlflow_runs(uri)
    assert mlflow_numbers(uri, run) == numbers_of(result.run_dir) and notes_of(result.run_dir) == []
    assert (run.info.run_name, run.info.status, run.data.params["logging.mlflow"]) == ("cats", "FINISHED", uri)


@with_mlflow
def test_mlflow_resumed_elsewhere_is_a_run_there(tmp_path):
    pytest.importorskip("mlflow")
    first, second = store_uri("file", tmp_path / "a"), store_uri("file", tmp_path / "b")
    track(tmp_path / "cats", config_with(mlflow=first), range(1, 3))
    track(tmp_path / "cats", config_with(mlflow=second), range(3, 5))
    assert len(mlflow_runs(first)) == len(mlflow_runs(second)) == 1
    assert notes_of(tmp_path / "cats") == []


@with_mlflow
def test_mlflow_trials_are_runs_of_their_study(tmp_path):
    pytest.importorskip("mlflow")
    uri = store_uri("file", tmp_path)
    for number in ("000", "001"):
        track(tmp_path / "search" / "trials" / number, config_with(mlflow=uri), range(1, 3))
    runs = mlflow_runs(uri)
    assert sorted(run.info.run_name for run in runs) == ["search-000", "search-001"]
    assert {run.data.tags["study"] for run in runs} == {"search"}


@with_mlflow
def test_mlflow_lost_in_a_run_is_noted_once_and_gets_everything_when_it_is_back(tmp_path):
    pytest.importorskip("mlflow")
    uri, run_dir = store_uri("file", tmp_path), tmp_path / "cats"
    run_dir.mkdir()
    (tracker,), _ = open_trackers(run_dir, config_with(mlflow=uri))
    writer = RecordWriter(run_dir, tensorboard=False, purge_step=0, trackers=[tracker])
    tracker._sending.result()
    (tmp_path / "mlruns").rename(tmp_path / "away")
    for step in range(1, 5):
        writer.write("step", step=step, epoch=1, objective=1 / step)
        assert tracker._sending.exception() is not None
    (tmp_path / "away").rename(tmp_path / "mlruns")
    writer.write("epoch", step=5, epoch=1, val_top1=0.5)
    writer.close()
    (note,) = notes_of(run_dir)
    assert note.startswith("logging.mlflow: ") and "\n" not in note
    (run,) = mlflow_runs(uri)
    assert mlflow_numbers(uri, run) == numbers_of(run_dir) and run.info.status == "FINISHED"


@with_mlflow
def test_mlflow_that_is_not_reachable_costs_one_note(tmp_path):
    pytest.importorskip("mlflow")
    track(tmp_path, config_with(mlflow="http://127.0.0.1:9"), range(1, 6))
    assert len(notes_of(tmp_path)) == 1
    assert sum(record["kind"] == "step" for record in read_records(tmp_path / METRICS_FILE)) == 5


# -- Weights & Biases -------------------------------------------------------------------------


def wandb_records(run_dir: Path) -> list:
    """Return what the offline runs of a directory hold, oldest first (LevelDB's log format)."""
    from wandb.proto import wandb_internal_pb2

    records = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        content, position, whole = path.read_bytes(), 7, b""
        while position + 7 <= len(content):
            if (left := 32768 - position % 32768) < 7:
                position += left
                continue
            _, size, kind = struct.unpack_from("<IHB", content, position)
            whole += content[position + 7 : position + 7 + size]
            position += 7 + size
            if kind in (1, 4):  # a full record, or its last part
                records.append(wandb_internal_pb2.Record.FromString(whole))
                whole = b""
    return records


def wandb_numbers(records: list) -> dict[tuple[str, int], float]:
    numbers = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            numbers |= {(name, row["step"]): value for name, value in row.items() if "/" in name}
    return numbers


def test_wandb_offline_holds_the_numbers_and_a_resumed_run_keeps_its_id(tmp_path):
    pytest.importorskip("wandb")
    run_dir = tmp_path / "search" / "trials" / "007"
    config = config_with(wandb="flowers")
    track(run_dir, config, range(1, 6), ok=False)
    track(run_dir, config, range(4, 9), scale=3.0)
    records = wandb_records(run_dir)
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert len(list(run_dir.glob("wandb/offline-run-*"))) == 2
    assert {(run.project, run.display_name, run.run_group) for run in runs} == {("flowers", "search-007", "search")}
    assert len({run.run_id for run in runs}) == 1
    assert wandb_numbers(records) == pytest.approx(numbers_of(run_dir), rel=1e-8)
    assert {record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"} == {255, 0}
    values = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert values["recipe"]["base_lr"] == 0.1 and values["logging"]["wandb"] == "flowers"
    assert notes_of(run_dir) == []


SCRIPT = """
import sys
from pathlib import Path
from raytricks.config import ExperimentConfig
from raytricks.config.schema import LoggingConfig
from raytricks.training.records import RecordWriter
from raytricks.training.trackers import open_trackers
run_dir = Path(sys.argv[1])
config = ExperimentConfig(logging=LoggingConfig(mlflow=sys.argv[2], wandb="flowers"))
trackers, problems = open_trackers(run_dir, config)
print(*problems, sep="\\n")
writer = RecordWriter(run_dir, tensorboard=False, purge_step=0, trackers=trackers)
writer.write("step", step=1, epoch=1, objective=0.5)
writer.close()
"""


def run_script(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    """Track a run in a process of its own, whose home and working directory are empty."""
    for name in ("home", "here", "cats"):
        (tmp_path / name).mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_", "PYTHONWARNINGS"))}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "cats"), f"file:{tmp_path / 'mlruns'}"],
        env=kept | {"HOME": str(tmp_path / "home")} | environment,
        cwd=tmp_path / "here",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.mark.slow
def test_trackers_offline_write_nothing_elsewhere_and_no_key_anywhere(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    outcome = run_script(tmp_path, WANDB_MODE="offline", WANDB_API_KEY=KEY, MLFLOW_TRACKING_TOKEN=KEY)
    assert outcome.stdout.strip() == "" and notes_of(tmp_path / "cats") == []
    assert (tmp_path / "mlruns").is_dir() and list((tmp_path / "cats").glob("wandb/offline-run-*"))
    assert [*(tmp_path / "home").rglob("*"), *(tmp_path / "here").rglob("*")] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_wandb_without_a_key_is_a_line_and_no_question(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    line = run_script(tmp_path).stdout.strip()
    assert line.startswith("logging.wandb: no API key; set WANDB_API_KEY, or WANDB_MODE=offline")
    assert len(read_records(tmp_path / "cats" / METRICS_FILE)) == 1


# -- without either -----------------------------------------------------------------------------


def test_trackers_are_imported_only_when_switched_on():
    check = (
        "import sys, raytricks.training.run_files, raytricks.training.records\n"
        "from raytricks.config import ExperimentConfig\n"
        "from raytricks.training.trackers import open_trackers, require_trackers\n"
        "require_trackers(ExperimentConfig())\n"
        "assert open_trackers(None, ExperimentConfig()) == ([], [])\n"
        "assert not {'mlflow', 'wandb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_trackers_missing_packages_are_named_with_their_extras(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        require_trackers(config_with(mlflow="http://host:5000", wandb="flowers"))
    assert caught.value.problems == [
        "logging.mlflow: mlflow is not installed; pip install 'raytricks[mlflow]'",
        "logging.wandb: wandb is not installed; pip install 'raytricks[wandb]'",
    ]
    require_trackers(ExperimentConfig())


def test_trackers_folder_of_the_name_is_not_the_package(monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()  # wandb makes one in the working directory, where a notebook imports from
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(Path(os.__file__).parent)])
    for name in [name for name in sys.modules if name == "wandb" or name.startswith("wandb.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match="wandb is not installed"):
        require_trackers(config_with(wandb="flowers"))


def test_trackers_database_needs_its_packages(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: json.__spec__)
    monkeypatch.setattr(mlflow_tracker, "find_spec", lambda name: None if name == "alembic" else json.__spec__)
    for scheme in ("sqlite", "postgresql+psycopg2"):
        with pytest.raises(ConfigError, match="store needs alembic; pip install"):
            require_trackers(config_with(mlflow=f"{scheme}:///x"))
    require_trackers(config_with(mlflow="http://host:5000"))


def test_tracker_that_fails_is_noted_once_tried_again_and_told_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "no route")
    tracker = FlakyTracker(2, 3)
    writer = RecordWriter(tmp_path, tensorboard=False, purge_step=0, trackers=[tracker])
    for step in range(1, 5):
        writer.write("step", step=step, epoch=1, objective=0.5, grad_norm=math.nan, text="none")
    writer.close(ok=False)
    assert tracker.taken == [("step", 1, {"objective": 0.5}), ("step", 4, {"objective": 0.5})]
    assert tracker.ended is False
    kinds = [record["kind"] for record in read_records(tmp_path / METRICS_FILE)]
    assert kinds == ["step", "step", "note", "step", "step"]
    assert notes_of(tmp_path) == [
        "logging.mlflow: *** to host; the run goes on and metrics.jsonl has everything"  # a key of the environment
    ]


def test_tracker_that_cannot_be_opened_is_a_line(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(mlflow_tracker, "import_module", absent)
    opened, (line,) = open_trackers(tmp_path, config_with(mlflow="http://host:5000"))
    assert opened == [] and line.startswith("logging.mlflow: No module named 'mlflow'; ")


@pytest.mark.parametrize(
    "uri",
    [
        "http://anna:pass-word@host:5000",
        "https://pass-word@host",
        "postgresql://anna:pass-word/x@host/db",
        "postgresql://host/db?user=anna&password=pass-word",
        "https://host/?api_key=pass-word",
    ],
)
def test_mlflow_uri_with_credentials_is_refused_and_not_repeated(uri):
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"logging.mlflow": uri})
    (line,) = caught.value.problems
    assert "MLFLOW_TRACKING_PASSWORD" in line and "pass-word" not in line


@pytest.mark.parametrize(
    "uri", ["http://host:5000", "sqlite:////home/a@b/m.db", "file:/home/a@b", "/a@b", "databricks://profile"]
)
def test_mlflow_uri_without_credentials_is_taken(uri):
    assert load_config(None, {"logging.mlflow": uri}).config.logging.mlflow == uri


@pytest.mark.parametrize("project", ["a/b", "a:b", "x" * 129])
def test_wandb_project_is_one_that_wandb_takes(project):
    with pytest.raises(ConfigError, match="logging.wandb: must match"):
        load_config(None, {"logging.wandb": project})


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mlruns", "{here}/mlruns"),
        ("file:mlruns", "file:{here}/mlruns"),
        ("file:/a/mlruns", "file:/a/mlruns"),
        ("file:///a/mlruns", "file:///a/mlruns"),
        ("sqlite:///m.db", "sqlite:///{here}/m.db"),
        ("sqlite:////a/m.db", "sqlite:////a/m.db"),
        ("http://host:5000", "http://host:5000"),
        ("databricks", "databricks"),
    ],
)
def test_mlflow_uri_means_the_same_in_any_directory(tmp_path, monkeypatch, uri, expected):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri(uri) == expected.format(here=tmp_path.resolve())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("runs/cats", ("cats", None)),
        ("runs/007", ("007", None)),
        ("runs/search/trials/007", ("search-007", "search")),
        ("runs/search/retrain/001", ("search-retrain-001", "search")),
        ("runs/search/trials/best", ("best", None)),
    ],
)
def test_tracker_names_a_run_by_its_directory(path, expected):
    assert tracked_name(Path(path)) == expected
