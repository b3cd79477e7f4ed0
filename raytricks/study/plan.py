"""What a study will cost: its config's speed, measured here for some seconds, times what it is to train."""

import os

import torch

from raytricks.cluster.session import ray_session
from raytricks.cluster.tune.driver import trial_slots
from raytricks.data.prepared import prepare_data
from raytricks.study.launch import StudyLaunch
from raytricks.tuning.forecast import forecast, forecast_lines, measure_speed
from raytricks.tuning.rungs import rungs
from raytricks.tuning.space import apply_values, default_values

_MEASURED_S = 15.0


def forecast_study(launch: StudyLaunch, price_per_hour: float | None) -> list[str]:
    """Measure, and return the lines of the forecast."""
    config = launch.config
    torch.set_num_threads(config.hardware.cpus_per_worker or 1)
    device = torch.device(launch.device_type)
    default = apply_values(config, default_values(config)).model_copy(update={"workers": 0})
    speed = measure_speed(default, prepare_data(launch.selection, config.data), device, _MEASURED_S)
    found = forecast(
        speed,
        num_trials=launch.num_trials,
        slots=min(_slots(launch), launch.num_trials),
        epochs=config.recipe.epochs,
        rungs=rungs(config),
        reduction_factor=config.tune.reduction_factor,
        num_train=len(launch.selection.train),
        num_evaluation=len(launch.selection.evaluation),
        num_retrainings=2 * config.tune.retrain_seeds,
        num_all_train=len(launch.retraining.train),
    )
    return forecast_lines(found, speed, price_per_hour, launch.device_type == "cuda")


def _slots(launch: StudyLaunch) -> int:
    """Return the trials at a time: of the cluster of RAY_ADDRESS, else of this machine, without starting Ray."""
    uses_gpu = launch.device_type == "cuda"
    if "RAY_ADDRESS" in os.environ:
        with ray_session() as resources:
            return trial_slots(launch.config, resources, use_gpu=uses_gpu)
    resources = {"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(torch.cuda.device_count())}
    return trial_slots(launch.config, resources, use_gpu=uses_gpu)
