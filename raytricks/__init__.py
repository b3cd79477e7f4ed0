"""raytricks: train the best image classifier your hardware can make, on a laptop or a Ray cluster.

>>> import raytricks
>>> result = raytricks.train("configs/digits.yaml", {"recipe.epochs": 10})
>>> model = raytricks.load_model(result.run_dir)
"""

from typing import TYPE_CHECKING

from raytricks.version import __version__

if TYPE_CHECKING:
    from raytricks.api import diagnose, train
    from raytricks.cluster.jobs.job import Job
    from raytricks.config import ExperimentConfig, load_config
    from raytricks.plan import Plan, plan_run
    from raytricks.recipe.doctor import Finding
    from raytricks.run import RunResult
    from raytricks.study import Study, tune
    from raytricks.submit import submit
    from raytricks.training.model_file import TrainedModel, load_model

__all__ = [
    "ExperimentConfig",
    "Finding",
    "Job",
    "Plan",
    "RunResult",
    "Study",
    "TrainedModel",
    "__version__",
    "diagnose",
    "load_config",
    "load_model",
    "plan_run",
    "submit",
    "train",
    "tune",
]

_HOMES = {
    "ExperimentConfig": "raytricks.config",
    "load_config": "raytricks.config",
    "Plan": "raytricks.plan",
    "RunResult": "raytricks.run",
    "diagnose": "raytricks.api",
    "plan_run": "raytricks.plan",
    "train": "raytricks.api",
    "Finding": "raytricks.recipe.doctor",
    "Study": "raytricks.study",
    "tune": "raytricks.study",
    "Job": "raytricks.cluster.jobs.job",
    "submit": "raytricks.submit",
    "TrainedModel": "raytricks.training.model_file",
    "load_model": "raytricks.training.model_file",
}


def __getattr__(name: str):
    """Import a public name on first use, so that `import raytricks` needs neither torch nor ray."""
    if name not in _HOMES:
        raise AttributeError(f"module 'raytricks' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
