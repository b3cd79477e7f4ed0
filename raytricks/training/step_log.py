"""Metrics of the steps, kept on the device and fetched a few times an epoch, and the figures made of them.

Reading a number from a GPU waits for it; one read an interval costs nothing. The sums of all
workers are added in the same read.
"""

from collections.abc import Callable, Mapping, Sequence
import math

import torch
from torch import Tensor

from raytricks.training.worker import Worker

SUMMED = ("objective", "cross_entropy", "correct")
"""Per step, sums over its images: objective, plain cross-entropy, correct answers."""
SHARED = ("grad_norm", "skipped")
"""Per step, means over the workers: the gradient's norm; 1 when the loss scaler skipped the step. What parts
measure follows them."""
STEP_VALUES = SUMMED + SHARED
TOTALS = (*SUMMED, "skipped", "images", "seconds", "data_wait_s")
"""Of an epoch: sums over its steps; data_wait_s is the first worker's wait for its batches. Parts add their own."""


RowTotals = Callable[..., Mapping[str, float]]
Summary = Callable[..., Mapping[str, float | None]]


class StepLog:
    """Collects one row a step and hands them out summed over the workers.

    Attributes:
        measured: names of what parts measure, after those of STEP_VALUES.
    """

    def __init__(self, worker: Worker, measured: Sequence[str] = ()) -> None:
        self._worker, self.measured = worker, tuple(measured)
        self._rows: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Tensor) -> None:
        """Keep a step's float32 values, STEP_VALUES and what is measured, on the device; does not wait for them."""
        self._rows.append(row)

    def fetch(self) -> list[dict[str, float]]:
        """Return the rows since the last call, summed over workers; waits for the device once.

        Collective: all workers must call it after the same step.
        """
        if not self._rows:
            return []
        rows = torch.stack(self._rows).double()
        self._rows = []
        rows = self._worker.sum_over_workers(rows)
        rows[:, len(SUMMED) :] /= self._worker.world_size
        return [dict(zip(STEP_VALUES + self.measured, row, strict=True)) for row in rows.tolist()]


def add_to_totals(
    totals: dict[str, float], rows: list[dict[str, float]], batch: int, of_parts: Sequence[RowTotals] = ()
) -> None:
    """Add steps to an epoch's totals; what a skipped step computed may not be finite and is left out.

    Args:
        totals: keys of TOTALS; `seconds` is left to the caller.
        batch: images of a step.
        of_parts: the slot `step_totals`.
    """
    totals["skipped"] += sum(row["skipped"] for row in rows)
    for row in rows:
        if row["skipped"]:
            continue
        totals["images"] += batch
        for name in SUMMED:
            totals[name] += row[name]
        for call in of_parts:
            for name, value in call(row=row).items():
                totals[name] = totals.get(name, 0.0) + value


def interval_summary(sums: dict[str, float], num_steps: int, global_batch_size: int) -> dict[str, float]:
    """Return the figures of some steps.

    Args:
        sums: keys of TOTALS.
    """
    images = sums["images"]
    means = (mean(sums[name], images) for name in SUMMED)
    return {
        **dict(zip(("objective", "cross_entropy", "top1"), means, strict=True)),
        "skipped_steps": int(sums["skipped"]),
        "images_per_second": num_steps * global_batch_size / sums["seconds"],
    }


def epoch_summary(
    totals: dict[str, float], global_batch_size: int, of_parts: Sequence[Summary] = ()
) -> dict[str, float | None]:
    """Return the figures of an epoch's training.

    Args:
        totals: keys of TOTALS.
        of_parts: the slot `summary`.
    """
    images, seconds = totals["images"], totals["seconds"]
    images_seen = images + totals["skipped"] * global_batch_size
    summary: dict[str, float | None] = {
        "train_objective": mean(totals["objective"], images),
        "train_cross_entropy": mean(totals["cross_entropy"], images),
        "train_top1": mean(totals["correct"], images),
        "skipped_steps": int(totals["skipped"]),
        "images_per_second": images_seen / seconds,
        "train_s": seconds,
        "data_wait_s": totals["data_wait_s"],
    }
    for call in of_parts:
        summary |= call(totals=totals, global_batch_size=global_batch_size)
    return summary


def mean(total: float, count: float) -> float:
    """Return NaN where there is nothing to take the mean of: fp16 skipped every step."""
    return total / count if count else math.nan
