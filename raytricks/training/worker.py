"""One training process among its peers."""

from dataclasses import dataclass

import torch
from torch import Tensor
import torch.distributed as dist

from raytricks.tricks.mixed_precision import DeviceType


@dataclass(frozen=True)
class Worker:
    """A process of a data-parallel run; the only one by default.

    With world_size > 1 a torch.distributed process group must be initialised.

    Attributes:
        num_local: the processes of this machine, this one among them, that share its memory.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")
    num_local: int = 1

    @property
    def device_type(self) -> DeviceType:
        """Return "cpu" or "cuda"."""
        return "cuda" if self.device.type == "cuda" else "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this worker writes the files."""
        return self.rank == 0

    def sum_over_workers(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all workers, on every worker."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def largest_over_workers(self, number: int) -> int:
        """Return the largest of the numbers that the workers give, on every worker."""
        value = torch.tensor(number, device=self.device)
        if self.world_size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gather_to_first(self, values: Tensor) -> Tensor | None:
        """Return (world_size, ...) stacked values on the first worker, None elsewhere."""
        gathered = [torch.empty_like(values) for _ in range(self.world_size)]
        if self.world_size > 1:
            dist.all_gather(gathered, values)
        else:
            gathered = [values]
        return torch.stack(gathered) if self.is_first else None

    def gather_rows(self, rows: Tensor) -> Tensor | None:
        """Return the (n, K) rows of all workers, one after the other, on the first worker; None elsewhere.

        The workers may have different numbers of rows.
        """
        if self.world_size == 1:
            return rows
        counts = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        counts[self.rank] = len(rows)
        numbers: list[int] = self.sum_over_workers(counts).tolist()
        padded = rows.new_zeros(max(numbers), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = self.gather_to_first(padded)
        return None if gathered is None else torch.cat([part[:n] for part, n in zip(gathered, numbers, strict=True)])

    def wait_for_all(self) -> None:
        """Return once every worker has come here."""
        if self.world_size > 1:
            dist.barrier()
