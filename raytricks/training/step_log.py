"""Metrics of the steps, kept on the device and fetched a few times an epoch.

Reading a number from a GPU waits for it; one read an interval costs nothing. The sums of all
workers are added in the same read.
"""

import torch
from torch import Tensor

from raytricks.training.worker import Worker

SUMMED = ("objective", "cross_entropy", "correct")
"""Per step, sums over its images: objective, plain cross-entropy, correct answers."""
SHARED = ("grad_norm", "skipped", "small_square", "small_inverse")
"""Per step, means over the workers: the gradient's norm; 1 when the loss scaler skipped the step;
|g_b|^2 and 1/b of a small batch, 0 where the gradient noise is not measured."""
STEP_VALUES = SUMMED + SHARED
NOISE_TOTALS = ("noise_steps", "noise_small_square", "noise_small_inverse", "noise_large_square")
TOTALS = (*SUMMED, "skipped", "images", "seconds", "data_wait_s", *NOISE_TOTALS)
"""Of an epoch: sums over its steps; data_wait_s is the first worker's wait for its batches."""


class StepLog:
    """Collects one row a step and hands them out summed over the workers."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._rows: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Tensor) -> None:
        """Keep a step's float32 values, in the order of STEP_VALUES, on the device; does not wait for them."""
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
        return [dict(zip(STEP_VALUES, row, strict=True)) for row in rows.tolist()]


def add_to_totals(totals: dict[str, float], rows: list[dict[str, float]], batch: int) -> None:
    """Add steps to an epoch's totals; what a skipped step computed may not be finite and is left out.

    Args:
        totals: keys of TOTALS; `seconds` is left to the caller.
        batch: images of a step.
    """
    totals["skipped"] += sum(row["skipped"] for row in rows)
    for row in rows:
        if row["skipped"]:
            continue
        totals["images"] += batch
        for name in SUMMED:
            totals[name] += row[name]
        if row["small_inverse"]:
            totals["noise_steps"] += 1
            totals["noise_small_square"] += row["small_square"]
            totals["noise_small_inverse"] += row["small_inverse"]
            totals["noise_large_square"] += row["grad_norm"] ** 2
