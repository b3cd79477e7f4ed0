"""How fast a config trains and evaluates here, measured for a few seconds on its own data."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
import tempfile
import time

import torch

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import evaluation_batches
from raytricks.data.prepared import PreparedData
from raytricks.errors import InterruptedRun
from raytricks.recipe.parallel_plan import plan_parallel
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.records import METRICS_FILE, read_records
from raytricks.training.state import build_state
from raytricks.training.worker import Worker
from raytricks.tricks.mixed_precision import autocast


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images a second of one worker."""

    train_images_per_second: float
    evaluation_images_per_second: float

    def epoch_s(self, num_train: int, num_evaluation: int) -> float:
        """Return the seconds of an epoch."""
        return num_train / self.train_images_per_second + num_evaluation / self.evaluation_images_per_second


def measure_speed(config: ExperimentConfig, data: PreparedData, device: torch.device, seconds: float) -> Speed:
    """Train for some seconds in a directory that is thrown away, then evaluate for half as many.

    Args:
        config: resolved; of one worker.
        seconds: of training; at least three steps are made.
    """
    worker = Worker(device=device)
    return Speed(
        train_images_per_second=_training_speed(config, data, worker, seconds),
        evaluation_images_per_second=_evaluation_speed(config, data, worker, seconds / 2),
    )


def _training_speed(config: ExperimentConfig, data: PreparedData, worker: Worker, seconds: float) -> float:
    logging = config.logging.model_copy(update={"every_steps": 1, "tensorboard": False})
    config = config.model_copy(update={"logging": logging})
    started_s = time.monotonic()
    num_steps = 0

    def stop_requested() -> int:
        nonlocal num_steps
        num_steps += 1
        return int(num_steps > 3 and time.monotonic() - started_s > seconds)

    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(config=config, data=data, run_dir=Path(folder))
        with suppress(InterruptedRun):
            next(run_epochs(job, worker, stop_requested=stop_requested))
        steps = [r["images_per_second"] for r in read_records(Path(folder, METRICS_FILE)) if r["kind"] == "step"]
    return median(steps[1:] or steps)  # the first step also allocates


def _evaluation_speed(config: ExperimentConfig, data: PreparedData, worker: Worker, seconds: float) -> float:
    parallel = plan_parallel(config, num_workers=1, device_type=worker.device_type)
    state = build_state(config, class_names=data.class_names, worker=worker, precision=parallel.precision)
    layout = torch.channels_last if config.hardware.channels_last else torch.contiguous_format
    batches = evaluation_batches(
        data.evaluation,
        data.transform,
        rank=0,
        world_size=1,
        batch_size=2 * parallel.micro_batch_size,
        device=worker.device,
    )
    state.model.eval()
    started_s, num_images = time.perf_counter(), 0
    with torch.inference_mode(), autocast(worker.device_type, parallel.precision):
        for inputs, labels in batches:
            (state.model(inputs.contiguous(memory_format=layout)).argmax(1).cpu() == labels.cpu()).sum()
            num_images += len(labels)
            if time.perf_counter() - started_s > seconds:
                break
    return num_images / (time.perf_counter() - started_s)
