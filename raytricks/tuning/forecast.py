"""What a study will cost: trials, concurrency and hours, before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass

from raytricks.tuning.speed import Speed


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
