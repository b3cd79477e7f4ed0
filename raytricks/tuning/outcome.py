"""What a study found, as plain values: its trials, its certificate and the files they are in."""

from dataclasses import dataclass, field
from typing import Any, Literal

TrialStatus = Literal["finished", "stopped", "failed", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """One trial.

    Attributes:
        number: 0 is the config as it was given.
        values: dotted config key -> value, of the searched keys only.
        status: finished all its epochs; stopped early by the scheduler; failed; unfinished: the study was stopped.
        reason: why it failed or was stopped, one line.
        top1: of the selection split after each epoch, parts of 1.
        elapsed_s: seconds after the study's start when each epoch was done.
        train_s: seconds spent in it, training and evaluation.
        run_dir: its run directory.
    """

    number: int
    values: dict[str, Any]
    status: TrialStatus
    reason: str | None = None
    top1: tuple[float, ...] = ()
    elapsed_s: tuple[float, ...] = ()
    train_s: float = 0.0
    run_dir: str = ""

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.top1)

    @property
    def score(self) -> float | None:
        """Top-1 after the last epoch of a finished trial; others cannot win."""
        return self.top1[-1] if self.status == "finished" and self.top1 else None


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A setting that was trained again, on all training images, once per fresh seed.

    Attributes:
        search_top1: its score in the search, on the selection split.
        test_top1: of the test images, one a seed, in the order of `seeds`.
    """

    name: Literal["default", "winner"]
    values: dict[str, Any]
    search_top1: float | None
    seeds: tuple[int, ...]
    test_top1: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The winner against the default, trained again with fresh seeds and scored once on the test images.

    Attributes:
        difference: mean test top-1 of the winner minus the default's, parts of 1.
        low, high: its 95% confidence interval (Welch); None with fewer than two seeds.
        verdict: one sentence for people.
    """

    default: Arm
    winner: Arm
    difference: float
    low: float | None
    high: float | None
    verdict: str
    num_test_images: int


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A whole study.

    Attributes:
        keys: the searched dotted keys.
        best: number of the best finished trial, None when none finished.
        rung_correlation: epoch -> Spearman correlation of the score after it with the final score, over the
            finished trials.
        importance: key -> (mean, standard deviation) part of the score's variation that it explains.
        certificate: None before or without retraining.
        provenance: seeds, versions, data hash, command, times.
    """

    name: str
    study_dir: str
    data_name: str
    keys: tuple[str, ...]
    trials: tuple[TrialOutcome, ...]
    best: int | None
    rung_correlation: dict[int, float] = field(default_factory=dict)
    importance: dict[str, tuple[float, float]] = field(default_factory=dict)
    certificate: Certificate | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
