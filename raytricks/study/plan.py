"""What a study will cost: its config's speed, measured here for some seconds, times what it is to train."""

import torch

from raytricks.cluster.checks.cluster import cluster_address
from raytricks.cluster.placement import alive_nodes
from raytricks.cluster.session import ray_session, require_reachable
from raytricks.cluster.tune.driver import trial_slots
from raytricks.data.prepared import prepare_data
from raytricks.errors import ConfigError
from raytricks.limits import usable_cpus
from raytricks.study.launch import StudyLaunch
from raytricks.tuning.forecast import forecast, forecast_lines, measure_speed
from raytricks.tuning.rungs import rungs
from raytricks.tuning.space import apply_values, default_values

_MEASURED_S = 15.0


def forecast_study(launch: StudyLaunch, price_per_hour: float | None) -> list[str]:
    """Measure, and return the lines of the forecast."""
    config = launch.config
    torch.set_num_threads(config.hardware.cpus_per_worker or 1)
    require_reachable()
    if launch.device_type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "hardware.device is cuda, a forecast measures on this machine, which has no usable GPU; ask for it on a "
            "machine like those of the cluster"
        )
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
    if cluster_address() is not None:
        with ray_session():
            return trial_slots(launch.config, alive_nodes(), use_gpu=uses_gpu)
    resources = {"CPU": float(usable_cpus()), "GPU": float(torch.cuda.device_count())}
    return trial_slots(launch.config, [resources], use_gpu=uses_gpu)
