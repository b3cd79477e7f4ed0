"""raytricks: train the best image classifier your hardware can make, on a laptop or a Ray cluster.

>>> import raytricks
>>> result = raytricks.train("configs/digits.yaml", {"recipe.epochs": 10})
>>> model = raytricks.load(result.run_dir)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from raytricks.version import __version__

if TYPE_CHECKING:
    from raytricks.api import diagnose, train
    from raytricks.cluster.jobs.job import Job
    from raytricks.config import ExperimentConfig, load_config
    from raytricks.export.exporting import ExportResult, export_model
    from raytricks.inference.evaluation import Evaluation
    from raytricks.inference.trained_model import Prediction, TrainedModel
    from raytricks.plan import Plan, plan_run
    from raytricks.recipe.doctor import Finding
    from raytricks.remote import submit
    from raytricks.report.progress import Reporter
    from raytricks.run import RunResult
    from raytricks.study import Study, tune
    from raytricks.training.kept_models import load
    from raytricks.use.evaluating import evaluate
    from raytricks.use.predicting import PredictionResult, predict

__all__ = [
    "Evaluation",
    "ExperimentConfig",
    "ExportResult",
    "Finding",
    "Job",
    "Plan",
    "Prediction",
    "PredictionResult",
    "Reporter",
    "RunResult",
    "Study",
    "TrainedModel",
    "__version__",
    "diagnose",
    "evaluate",
    "export_model",
    "load",
    "load_config",
    "plan_run",
    "predict",
    "submit",
    "train",
    "tune",
]

_HOMES = {
    "ExperimentConfig": "raytricks.config",
    "load_config": "raytricks.config",
    "Plan": "raytricks.plan",
    "Reporter": "raytricks.report.progress",
    "RunResult": "raytricks.run",
    "diagnose": "raytricks.api",
    "plan_run": "raytricks.plan",
    "train": "raytricks.api",
    "Finding": "raytricks.recipe.doctor",
    "Study": "raytricks.study",
    "tune": "raytricks.study",
    "Job": "raytricks.cluster.jobs.job",
    "submit": "raytricks.remote",
    "Prediction": "raytricks.inference.trained_model",
    "TrainedModel": "raytricks.inference.trained_model",
    "load": "raytricks.training.kept_models",
    "Evaluation": "raytricks.inference.evaluation",
    "evaluate": "raytricks.use.evaluating",
    "ExportResult": "raytricks.export.exporting",
    "export_model": "raytricks.export.exporting",
    "PredictionResult": "raytricks.use.predicting",
    "predict": "raytricks.use.predicting",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import raytricks` needs neither torch nor ray."""
    if name not in _HOMES:
        raise AttributeError(f"module 'raytricks' has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found
