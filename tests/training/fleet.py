"""Real processes joined by gloo, which stay for a whole test module."""

from collections.abc import Callable
from pathlib import Path
import queue
from typing import Any

import torch
from torch import distributed
import torch.multiprocessing as multiprocessing

from raytricks.training.loop import TrainingJob, _Run
from raytricks.training.worker import Worker

MOST_WORKERS = 3


def _serve(rank: int, tasks, results) -> None:
    """Carry out tasks in one process of the fleet, each in a process group of its own."""
    torch.set_num_threads(1)
    for function, world_size, meeting_point, arguments in iter(tasks.get, None):
        outcome: Any = None
        distributed.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=world_size)
        try:
            outcome = function(Worker(rank, world_size), *arguments)
        except Exception as error:  # sent back, for the test to look at
            outcome = error
        distributed.destroy_process_group()
        results.put((rank, outcome))


class Fleet:
    """Processes that stay for the whole module: importing torch takes seconds."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["raytricks.training.loop", "torch._dynamo"])  # DDP imports the latter
        self.folder, self.number = folder, 0
        self.tasks = [context.Queue() for _ in range(MOST_WORKERS)]
        self.results = context.Queue()
        self.processes = [
            context.Process(target=_serve, args=(rank, tasks, self.results), daemon=True)
            for rank, tasks in enumerate(self.tasks)
        ]
        for process in self.processes:
            process.start()

    def run(self, world_size: int, function: Callable, *arguments) -> list:
        """Run function(worker, *arguments) in each of `world_size` processes."""
        if world_size == 1:
            return [function(Worker(), *arguments)]
        self.number += 1
        for tasks in self.tasks[:world_size]:
            tasks.put((function, world_size, f"file://{self.folder}/meeting-{self.number}", arguments))
        try:
            outcomes = dict(self.results.get(timeout=120) for _ in range(world_size))
        except queue.Empty:
            raise AssertionError("a worker hangs") from None
        return [outcomes[rank] for rank in range(world_size)]

    def close(self) -> None:
        for tasks in self.tasks:
            tasks.put(None)
        for process in self.processes:
            process.join(20)


def buffers_at_evaluation(worker: Worker, job: TrainingJob) -> tuple[list[float], list[float]]:
    """Return the first running mean before and after the averaging of the first epoch."""
    run = _Run(job, worker, lambda: 0, None)
    run.train_epoch(0)
    name = next(n for n, _ in run.state.model.named_buffers() if n.endswith("running_mean"))
    before = run.state.model.get_buffer(name).tolist()
    run.save_epoch(0)
    run.write_epoch(0)
    after = run.state.model.get_buffer(name).tolist()
    run.close()
    return before, after
