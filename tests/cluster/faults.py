"""A run that takes some seconds, faults that befall it at chosen steps, and the table of what they cost."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
import time

from safetensors.torch import load_file
import torch

from raytricks.training.records import read_records

SETTINGS = {
    "data.source": "digits",
    "data.image_size": 24,
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.norm": "group",
    "recipe.epochs": 4,
    "recipe.global_batch_size": 64,
    "tricks.warmup.epochs": 1.0,
    "tricks.mixup.alpha": 0.2,
    "hardware.precision": "fp32",
    "hardware.cpus_per_worker": 1,
    "hardware.start_timeout_s": 30.0,
    "hardware.max_restarts": 20,
    "checkpoint.every_steps": 5,
    "logging.every_steps": 1,
    "logging.tensorboard": False,
}


def settings(folder: Path, **changes) -> dict:
    """Return the settings of a run below a folder."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return SETTINGS | {"output_dir": str(folder)} | dotted


@dataclass
class Faults:
    """Stands in for a Reporter: causes faults at steps, and measures how long each stops the training.

    Attributes:
        planned: (step, what to do); it is tried again at later steps while it returns False.
        seconds: from each fault to the first step after it that had not been made before.
        again: steps that were made once more.
    """

    planned: list[tuple[int, Callable[[], object]]]
    seconds: list[float] = field(default_factory=list)
    again: int = 0
    notes: list[str] = field(default_factory=list)
    mode: str = "quiet"
    _most: int = 0
    _since: float | None = None
    _has_resumed: bool = False

    def record(self, record: dict) -> None:
        """Take a record of the run."""
        step = record["step"]
        if record["kind"] == "note":
            self.notes.append(record["text"])
            self._has_resumed |= "resumed from" in record["text"] or "begun again" in record["text"]
        if record["kind"] != "step":
            return
        self.again += step <= self._most
        if self._since is not None and self._has_resumed and step > self._most:
            self.seconds.append(time.monotonic() - self._since)
            self._since = None
        self._most = max(self._most, step)
        if self._since is None and self.planned and step >= self.planned[0][0] and self.planned[0][1]() is not False:
            self.planned.pop(0)
            self._since, self._has_resumed = time.monotonic(), False

    def line(self, text: str) -> None:
        """Take a line."""

    def __getattr__(self, name: str):
        return lambda *_: None


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """Return a finished run's weights."""
    return load_file(run_dir / "model.safetensors")


def are_equal(first: Path, second: Path) -> bool:
    """Whether two runs ended with the same weights, bit for bit."""
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def losses(run_dir: Path) -> list[float]:
    """Return the objective of each step that counts in the end."""
    by_step = {r["step"]: r["objective"] for r in read_records(run_dir / "metrics.jsonl") if r["kind"] == "step"}
    assert list(by_step) == list(range(1, len(by_step) + 1))
    return list(by_step.values())
