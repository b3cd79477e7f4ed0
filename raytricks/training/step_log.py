"""Metrics of the steps, kept on the device and fetched a few times an epoch.

Reading a number from a GPU waits for it; one read an interval costs nothing. The sums of all
workers are added in the same read.
"""

import torch
from torch import Tensor

from raytricks.training.worker import Worker

STEP_VALUES = ("objective", "cross_entropy", "correct", "grad_norm", "skipped")
"""Per step: sums over its images of objective, plain cross-entropy and correct answers; the
gradient's norm (the same on all workers); 1 when the loss scaler skipped the step."""
TOTALS = ("objective", "cross_entropy", "correct", "skipped", "images", "seconds")
"""Of an epoch: sums over its steps."""


class StepLog:
    """Collects one row a step and hands them out summed over the workers."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._rows: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Tensor) -> None:
        """Keep a step's (5,) float32 values on the device; does not wait for them."""
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
        rows[:, 3:] /= self._worker.world_size  # the norm and the skip are shared, not summed
        return [dict(zip(STEP_VALUES, row, strict=True)) for row in rows.tolist()]
