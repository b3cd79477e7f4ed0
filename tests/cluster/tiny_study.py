"""A tiny study on the embedded digits; as a script, it carries out a study in a process of its own.

python tiny_study.py FOLDER KEY=VALUE...
"""

from dataclasses import replace
from pathlib import Path
import sys
from typing import Any

from raytricks.cluster.session import ray_session
from raytricks.cluster.tune.driver import run_trials
from raytricks.config import load_config
from raytricks.data.loading import find_data
from raytricks.data.prepared import prepare_data
from raytricks.data.splits import hold_out
from raytricks.recipe.resolve import resolve_config, stats_of
from raytricks.tuning.study_task import StudyTask

TINY: dict[str, Any] = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 4,
    "recipe.global_batch_size": 32,
    "tricks.warmup.epochs": 0.0,
    "hardware.precision": "fp32",
    "hardware.cpus_per_worker": 1,
    "logging.tensorboard": False,
    "tune.space": {
        "recipe.base_lr": {"kind": "loguniform", "low": 0.01, "high": 1.0},
        "recipe.global_batch_size": [16, 32],
    },
    "tune.scheduler": "none",
}
LRS = (0.1, 0.05, 0.2, 0.4, 0.02, 0.8, 0.03, 0.3)


def tiny_task(folder: Path, num_trials: int = 4, points=None, num_train: int = 96, **changes: Any) -> StudyTask:
    """Return a task; `tiny_task(folder, recipe__epochs=2)`."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    config = load_config(None, TINY | dotted).config
    found = find_data(config.data, 0)
    count = num_train + 60
    few = replace(found.train, images=found.train.images.subset(range(count)), labels=found.train.labels[:count])
    kept, held = hold_out(few, 60 / count, 0, found.class_names)
    splits = replace(found, train=kept, evaluation=held, test=None)
    base, _ = resolve_config(config, stats_of(splits))
    values = [{"recipe.base_lr": lr, "recipe.global_batch_size": 32} for lr in LRS[:num_trials]]
    return StudyTask(
        base=base,
        splits=splits,
        data=prepare_data(splits, base.data),
        trials_dir=folder / "trials",
        points=tuple(points or values),
        num_trials=num_trials,
    )


if __name__ == "__main__":
    folder, *settings = sys.argv[1:]
    given = dict(setting.split("=") for setting in settings)
    task = tiny_task(Path(folder), num_train=400, **{key: int(value) for key, value in given.items()})
    with ray_session() as resources:
        print("ready", flush=True)
        run_trials(task, resources=resources, use_gpu=False, listener=lambda *_: None, stop_requested=lambda: 0)
    print("done", flush=True)
