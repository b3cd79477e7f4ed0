"""Whether the directory of the runs can be written, here and from every node, and the data read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
import shutil
from typing import Any
import uuid

from raytricks.cluster.checks.probe import describe_path, read_mark, write_mark
from raytricks.cluster.checks.result import CheckResult, fail, ok
from raytricks.config import DataConfig

_SHARE = "set output_dir to a directory that all nodes share, such as output_dir=/shared/runs"


@contextmanager
def open_trial_directory(output_dir: Path) -> Iterator[Path]:
    """Make a directory in `output_dir`; it goes again, with the parents that had to be made.

    Raises:
        OSError: it cannot be made.
    """
    made = [p for p in (output_dir, *output_dir.parents) if not p.is_dir()]
    trial_dir = output_dir / f".raytricks-check-{uuid.uuid4().hex[:8]}"
    try:
        trial_dir.mkdir(parents=True)
        yield trial_dir
    finally:
        shutil.rmtree(trial_dir, ignore_errors=True)
        for path in made:
            try:
                path.rmdir()
            except OSError:  # not made, or someone has put something there
                break


def check_storage_here(output_dir: Path) -> CheckResult:
    """Write, flush, rename, read and delete a file in the directory of the runs."""
    mark = uuid.uuid4().hex
    try:
        with open_trial_directory(output_dir) as trial_dir:
            write_mark(trial_dir / "driver", mark)
            if not read_mark(trial_dir / "driver", mark, wait_s=0):
                return fail("storage", f"{output_dir} does not keep what is written", "set output_dir to another place")
            (trial_dir / "driver").unlink()
    except OSError as error:
        found = f"{output_dir} cannot be written ({error.strerror})"
        return fail("storage", found, "set output_dir to a writable place")
    return ok("storage", f"{output_dir} can be written, flushed, renamed in and deleted from")


def local_data_path(data: DataConfig) -> str | None:
    """Return the absolute path of the data; None when the config names none, or a URL."""
    if data.path is None or "://" in data.path:
        return None
    return str(Path(data.path).expanduser().resolve())


def check_data_here(data: DataConfig) -> CheckResult:
    """Say whether the data is there; what is in it, `raytricks data info` says."""
    if data.path is None:
        return ok("data", "data.path is not set" if data.source == "auto" else f"data.source is {data.source}")
    path = local_data_path(data)
    if path is None:
        return ok("data", f"{data.path} is a URL, not looked at")
    if describe_path(path)["kind"] is None:
        return fail("data", f"{path} is not there, or cannot be read", "set data.path to the data's directory")
    return ok("data", f"{path} can be read")


def judge_storage(output_dir: Path, answers: Mapping[str, Mapping[str, Any]], unseen: set[str]) -> CheckResult:
    """Say whether all nodes see the same directory.

    Args:
        answers: node -> its answer, see `raytricks.cluster.checks.probe.NodeProbe`.
        unseen: nodes whose file did not arrive here.
    """
    troubles = {node: answer["storage"] for node, answer in answers.items() if answer["storage"] is not None}
    troubles |= {node: "wrote a file that is not seen here" for node in sorted(unseen) if node not in troubles}
    subject = "storage (nodes)"
    if troubles:
        return fail(subject, f"{output_dir}: {_listed(troubles)}", _SHARE)
    return ok(subject, f"{output_dir} is one and the same on {len(answers)} node{'s' if len(answers) > 1 else ''}")


def judge_data(path: str, here: Mapping[str, str], answers: Mapping[str, Mapping[str, Any]]) -> CheckResult:
    """Say whether all nodes see the data that this machine sees.

    Args:
        here: what `describe_path` says on this machine.
    """
    troubles = {}
    for node, answer in answers.items():
        if answer["data"]["kind"] is None:
            troubles[node] = "does not see it"
        elif here["kind"] is not None and answer["data"] != here:
            troubles[node] = "sees other files there"
    subject, remedy = "data (nodes)", "put it on storage that all nodes see, or set data.path to a URL"
    if troubles:
        return fail(subject, f"{path}: {_listed(troubles)}", remedy)
    return ok(subject, f"{path} is the same on {len(answers)} node{'s' if len(answers) > 1 else ''}")


def _listed(troubles: Mapping[str, str]) -> str:
    """Name up to three nodes."""
    shown = [f"node {node} {trouble}" for node, trouble in list(troubles.items())[:3]]
    return "; ".join(shown) + (f"; {len(troubles) - 3} more nodes" if len(troubles) > 3 else "")
