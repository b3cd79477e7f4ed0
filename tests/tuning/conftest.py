"""A tiny study on the embedded digits, without Ray."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from raytricks.config import load_config
from raytricks.data.loading import find_data
from raytricks.data.prepared import prepare_data
from raytricks.data.splits import hold_out
from raytricks.recipe.resolve import resolve_config, stats_of
from raytricks.training.loop import run_epochs
from raytricks.training.worker import Worker
from raytricks.tuning.study_task import StudyTask, TrialData
from raytricks.tuning.trial_run import TrialRun

TINY = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 4,
    "recipe.global_batch_size": 32,
    "tricks.warmup.epochs": 1.0,
    "hardware.precision": "fp32",
    "logging.tensorboard": False,
    "tune.space": {
        "recipe.base_lr": {"kind": "loguniform", "low": 0.01, "high": 1.0},
        "recipe.global_batch_size": [16, 32],
    },
    "tune.scheduler": "none",
}
LRS = (0.1, 0.05, 0.2, 0.4, 0.02, 0.8, 0.03, 0.3)


@pytest.fixture(scope="session")
def digits():
    """The splits of a search: 96 images to train on, 60 to rank trials by."""
    found = find_data(load_config(None, TINY).config.data, 0)
    few = found.train.images.subset(range(156))  # type: ignore[arg-type]
    train = replace(found.train, images=few, labels=found.train.labels[:156])
    kept, held = hold_out(train, 0.38, 0, found.class_names)
    return replace(found, train=kept, evaluation=held, test=None)


@pytest.fixture
def make_task(tmp_path, digits) -> Callable[..., StudyTask]:
    """Return a function that makes a task: `make_task(num_trials=3, recipe__epochs=2)`."""

    def make(num_trials: int = 2, points=None, folder: str = "trials", **changes) -> StudyTask:
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        base, _ = resolve_config(load_config(None, TINY | dotted).config, stats_of(digits))
        values = [{"recipe.base_lr": lr, "recipe.global_batch_size": 32} for lr in LRS[:num_trials]]
        return StudyTask(
            base=base,
            splits=digits,
            data=prepare_data(digits, base.data),
            trials_dir=tmp_path / folder,
            points=tuple(points or values),
            num_trials=num_trials,
        )

    return make


@pytest.fixture
def open_trial():
    """Return a function that opens a trial and closes it at the test's end."""
    opened: list[TrialRun] = []

    def open_it(task: StudyTask, number: int = 0, values=None, train=None) -> TrialRun:
        data = TrialData(task.splits, task.base, task.data)
        run = TrialRun(task, number, values, data=data, train=train or (lambda job: run_epochs(job, Worker())))
        opened.append(run)
        return run

    yield open_it
    for run in opened:
        run.close()


def newest_weights(trial_dir) -> dict[str, torch.Tensor]:
    """Return the model's tensors in the newest checkpoint."""
    newest = sorted((trial_dir / "checkpoints").glob("step-*"))[-1]
    return torch.load(newest / "state.pt", weights_only=True)["model"]
