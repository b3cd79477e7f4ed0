"""What a study will cost: the measured speed of its trials, and what follows from it."""

from collections.abc import Sequence
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


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The expected cost of a study.

    Attributes:
        trial_s: of a trial that is trained to its end.
        mean_epochs: epochs a trial is expected to train; the scheduler stops some early.
        slots: trials at a time.
        search_s, retraining_s: of the wall clock.
    """

    num_trials: int
    slots: int
    epochs: int
    trial_s: float
    mean_epochs: float
    search_s: float
    retraining_s: float

    @property
    def total_s(self) -> float:
        """Seconds of the whole study, without start-up."""
        return self.search_s + self.retraining_s


def expected_epochs(epochs: int, rungs: Sequence[int], reduction_factor: int) -> float:
    """Return the mean epochs of a trial when one in `reduction_factor` goes on at each rung.

    Asynchronous halving lets more go on while few trials are there to compare with, so this is a lower estimate.
    """
    stages = [*(rung for rung in rungs if rung < epochs), epochs]
    starts = [0, *stages]
    return sum(
        (end - start) / reduction_factor**number
        for number, (start, end) in enumerate(zip(starts, stages, strict=False))
    )


def forecast(
    speed: Speed,
    *,
    num_trials: int,
    slots: int,
    epochs: int,
    rungs: Sequence[int],
    reduction_factor: int,
    num_train: int,
    num_evaluation: int,
    num_retrainings: int,
    num_all_train: int,
) -> Forecast:
    """Work out the cost of a study from the measured speed.

    Args:
        rungs: epochs at which trials are judged; empty when every trial trains to its end.
        num_all_train: images that the default and the winner are trained on again.
    """
    epoch_s = speed.epoch_s(num_train, num_evaluation)
    mean_epochs = expected_epochs(epochs, rungs, reduction_factor)
    rounds = -(-num_retrainings // slots)
    return Forecast(
        num_trials=num_trials,
        slots=slots,
        epochs=epochs,
        trial_s=epochs * epoch_s,
        mean_epochs=mean_epochs,
        search_s=max(num_trials * mean_epochs / slots, epochs) * epoch_s,
        retraining_s=rounds * epochs * speed.epoch_s(num_all_train, 0),
    )


def forecast_lines(found: Forecast, speed: Speed, price_per_hour: float | None, uses_gpu: bool) -> list[str]:
    """Return the forecast for people.

    Args:
        price_per_hour: of one slot: a GPU, or a worker's CPUs.
    """
    lines = [
        f"speed     {speed.train_images_per_second:,.0f} images/s training, "
        f"{speed.evaluation_images_per_second:,.0f} evaluating (measured here, one worker)",
        f"trials    {found.num_trials}, {found.slots} at a time; {found.trial_s / 60:.1f} min for all {found.epochs} "
        f"epochs, {found.mean_epochs:.1f} epochs on average when the scheduler stops what lags behind",
        f"search    about {found.search_s / 3600:.2f} h",
        f"retrain   about {found.retraining_s / 3600:.2f} h",
        f"total     about {found.total_s / 3600:.2f} h, and start-up",
    ]
    if price_per_hour is not None:
        slot_hours = found.slots * found.total_s / 3600
        unit = "GPU" if uses_gpu else "slot"
        lines.append(
            f"cost      about {slot_hours * price_per_hour:.2f} ({slot_hours:.2f} {unit}-hours x {price_per_hour:g})"
        )
    return lines
