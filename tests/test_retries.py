"""Faults of storage: those that pass by are waited out, the others are told at once."""

import errno
import logging

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
import pytest

import raytricks
from raytricks import retries
from raytricks.data.storage import storage_at
from raytricks.errors import DataError
from raytricks.training import checkpoint, run_files
from raytricks.training.records import read_records

PASSING = [
    OSError(errno.ESTALE, "Stale file handle"),
    OSError("When reading: AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate."),
    OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 28, Timeout was reached"),
    OSError("HTTP status 503"),
    TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
]
LASTING = [
    OSError("AWS Error ACCESS_DENIED during GetObject operation"),
    OSError("AWS Error NO_SUCH_BUCKET during HeadObject operation"),
    OSError("HTTP status 400: ExpiredToken"),
    PermissionError(errno.EACCES, "Permission denied"),
    OSError(errno.ENOSPC, "No space left on device"),
]


class Flaky(MemoryFileSystem):
    """Fails as often as it is told to."""

    protocol = "flaky"
    faults: list[OSError] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("flaky://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        if self.faults:
            raise self.faults.pop()
        return super().cat_file(path, start=start, end=end, **kwargs)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Let the pauses pass at once."""
    monkeypatch.setattr(retries, "_FIRST_S", 0.001)
    monkeypatch.setattr(retries, "_LONGEST_S", 0.001)


@pytest.fixture
def flaky():
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky().pipe_file("/data/a", b"whole")
    Flaky.faults = []
    yield storage_at("flaky:///data")
    Flaky.faults = []


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_retries_of_a_read_outlast_a_fault_that_passes_by(flaky, caplog, fault):
    Flaky.faults = [fault] * 3
    with caplog.at_level(logging.WARNING):
        assert bytes(flaky.read("a")) == b"whole"
    assert sum("trying again" in record.message for record in caplog.records) == 3


@pytest.mark.parametrize("fault", LASTING, ids=str)
def test_retries_are_not_made_of_a_fault_that_lasts(flaky, fault):
    Flaky.faults = [fault] * 3
    with pytest.raises(DataError, match="cannot be read"):
        flaky.read("a")
    assert len(Flaky.faults) == 2


def test_retries_end(flaky, monkeypatch):
    monkeypatch.setitem(retries.with_retries.__kwdefaults__, "limit_s", 0.05)
    Flaky.faults = [PASSING[0]] * 100_000
    with pytest.raises(DataError, match="Stale file handle"):
        flaky.read("a")


def test_retries_of_a_save_keep_the_run(tmp_path, monkeypatch):
    """A stale handle in the middle of a save: the checkpoint is written by the next try, and a note says so."""
    faults, write = [PASSING[0]] * 2, checkpoint.write_atomically

    def stale(path, content):
        if faults:
            raise faults.pop()
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", stale)
    settings = {"data.source": "digits", "model.name": "resnet8", "model.width": 8, "recipe.epochs": 1}
    settings |= {"tricks.warmup.epochs": 0, "hardware.precision": "fp32", "logging.tensorboard": False}
    result = raytricks.train(None, settings | {"output_dir": str(tmp_path), "name": "saved"})
    assert result is not None and not faults
    assert checkpoint.newest_checkpoint(result.run_dir / run_files.CHECKPOINTS) is not None
    notes = [r["text"] for r in read_records(result.run_dir / "metrics.jsonl") if r["kind"] == "note"]
    assert sum("Stale file handle" in text and "trying again" in text for text in notes) == 2
