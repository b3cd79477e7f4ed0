"""metrics.jsonl, TensorBoard events and trackers: one record a log interval, an epoch and a test.

A record is a flat dict with "kind" (step, epoch, test, note), "step" and "epoch". The file is
also how a driver follows its workers.
"""

from collections.abc import Callable, Sequence
from functools import partial
import json
import math
from pathlib import Path
from typing import Any

from raytricks.files import write_atomically
from raytricks.trackers.tracked_run import Tracker
from raytricks.training.trackers import describe_failure

Record = dict[str, Any]
METRICS_FILE = "metrics.jsonl"


def read_records(path: Path) -> list[Record]:
    """Return the whole lines of a metrics file; a line cut off by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")[:-1]
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def drop_records_after(path: Path, step: int) -> None:
    """Forget what was logged after `step`, which a resumed run will do again."""
    if not path.is_file():
        return
    kept = [r for r in read_records(path) if r["step"] <= step and r["kind"] != "test"]
    content = "".join(json.dumps(r) + "\n" for r in kept).encode()
    if content != path.read_bytes():  # also when a line cut off by a kill would swallow the next one
        write_atomically(path, content)


class RecordWriter:
    """Appends records to a run's files. A tracker that fails is named in a note, once, and tried again.

    Args:
        listener: also given each record, in this process.
        trackers: also given the numbers of each record; closed with the files.
        callbacks: the user's own, called with `record`; what one of them raises ends the run, as it would in a loop
            of the user's own.
        purge_step: TensorBoard forgets events after it; the step a run resumes from.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        tensorboard: bool,
        purge_step: int,
        listener: Callable[[Record], None] | None = None,
        trackers: Sequence[Tracker] = (),
        callbacks: Sequence[Callable[..., None]] = (),
    ) -> None:
        self._file = (run_dir / METRICS_FILE).open("a", buffering=1)
        self._listener = listener
        self._tensorboard = _open_tensorboard(run_dir, purge_step) if tensorboard else None
        self._trackers, self._callbacks = trackers, callbacks
        self._failed: set[str] = set()
        self._step, self._epoch = purge_step, 0

    def write(self, kind: str, *, step: int, epoch: int, **values: Any) -> None:
        """Append one record; whole lines only. NaN and infinity, which JSON has not, become null."""
        values = {name: None if _is_not_finite(value) else value for name, value in values.items()}
        record = {"kind": kind, "step": step, "epoch": epoch, **values}
        self._file.write(json.dumps(record) + "\n")
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)
        if self._listener is not None:
            self._listener(record)
        for callback in self._callbacks:
            callback(record=dict(record))
        self._step, self._epoch = step, epoch
        for tracker in self._trackers if numbers else ():
            self._guard(tracker, partial(tracker.log, kind, step, numbers))

    def close(self, ok: bool = True) -> None:
        """Flush and close the files and the trackers, which are told whether the run is finished."""
        for tracker in self._trackers:
            self._guard(tracker, partial(tracker.close, ok))
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _guard(self, tracker: Tracker, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a library raises must not end the training
            if tracker.name not in self._failed:
                self._failed.add(tracker.name)
                self.write("note", step=self._step, epoch=self._epoch, text=describe_failure(tracker.name, error))


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _open_tensorboard(run_dir: Path, purge_step: int):
    from tensorboardX import SummaryWriter  # protobuf's import is paid only where events are written

    return SummaryWriter(str(run_dir / "tb"), purge_step=purge_step + 1)
