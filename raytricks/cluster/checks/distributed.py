"""A real group of two Ray Train workers: it sums, it trains, and both end with the same weights."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
import time
from typing import Any

import ray
from ray import train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
import torch
from torch import distributed as dist

from raytricks.cluster.checks.result import CheckResult, fail, ok, warn
from raytricks.cluster.checks.storage import open_trial_directory
from raytricks.cluster.follower import FitThread
from raytricks.config import ExperimentConfig, load_config
from raytricks.data.loading import find_data
from raytricks.data.prepared import prepare_data
from raytricks.recipe.resolve import resolve_config, stats_of
from raytricks.training.phases import share_phases
from raytricks.training.state import build_state
from raytricks.training.step import Stepper
from raytricks.training.worker import Worker

_NUM_WORKERS = 2
_NUM_VALUES = 2**20
_NUM_SUMS = 5
_NUM_STEPS = 3
_COLLECTIVE_TIMEOUT_S = 120
_GROUP_TIMEOUT_S = 300  # a slow node takes a minute or two to start workers; Ray waits for ever
_SETTINGS = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 8,
    "recipe.epochs": 1,
    "recipe.global_batch_size": 64,
    "tricks.warmup.epochs": 0.0,
    "hardware.precision": "fp32",
}


@dataclass(frozen=True)
class GroupMeasurement:
    """What the first of the workers measured, about all of them.

    Attributes:
        backend: gloo or nccl.
        nodes: Ray's ids of the nodes that the workers ran on.
        is_sum_right: the all-reduce gave the sum that it must.
        reduce_s: seconds of an all-reduce of `num_bytes`, the best of some.
        loss: of the last step.
        weight_spread: largest difference between two workers' weights.
    """

    backend: str
    nodes: tuple[str, ...]
    is_sum_right: bool
    reduce_s: float
    num_bytes: int
    loss: float
    weight_spread: float


def check_distributed(config: ExperimentConfig, resources: dict[str, float], output_dir: Path) -> CheckResult:
    """Train the digits for some steps with two workers.

    Args:
        config: of the run; its device decides on what.
        resources: of the cluster, which runs.
        output_dir: the group's files lie there meanwhile.
    """
    subject = "distributed"
    if resources.get("CPU", 0) < _NUM_WORKERS:
        return fail(subject, f"two workers need 2 CPUs, there are {resources.get('CPU', 0):g}", "set workers=0")
    free = available_cpus()
    if free < _NUM_WORKERS:
        return warn(subject, f"two workers need 2 CPUs, {free:g} are free now", "try again when other runs have ended")
    use_gpu = config.hardware.device != "cpu" and resources.get("GPU", 0) >= _NUM_WORKERS
    started_s = time.monotonic()
    try:
        with open_trial_directory(output_dir) as trial_dir:
            fit = FitThread(lambda: run_group(trial_dir, use_gpu=use_gpu))
            fit.start()
            fit.join(_GROUP_TIMEOUT_S)
    except OSError as error:
        return fail(subject, f"{output_dir} cannot be written ({error.strerror})", "set output_dir to a writable place")
    if fit.error is not None:
        return fail(subject, f"the group failed: {_reason(fit.error)}", "see Ray's logs, in session_latest/logs")
    if fit.result is None:
        found = f"the group has not ended within {_GROUP_TIMEOUT_S} s"
        return fail(subject, found, "see whether its workers start (`ray status`) and reach each other (firewall)")
    return judge_group(fit.result, time.monotonic() - started_s)


def available_cpus() -> float:
    """Return the CPUs of the cluster that nobody uses now."""
    return float(ray.available_resources().get("CPU", 0))


def _reason(error: BaseException) -> str:
    """Return the last line of what ended a worker, or the group."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", None) or {}
    first = next(iter(failures.values()), error)
    lines = str(first).strip().splitlines()
    return lines[-1].strip() if lines else type(first).__name__


def judge_group(measured: GroupMeasurement, elapsed_s: float) -> CheckResult:
    """Say whether two workers give what one would."""
    subject = "distributed"
    where = f"2 workers on {len(measured.nodes)} node{'s' if len(measured.nodes) > 1 else ''} with {measured.backend}"
    remedy = "the network or its driver damages data; look at the nodes' system logs"
    if not measured.is_sum_right:
        return fail(subject, f"{where}: an all-reduce gave a wrong sum", remedy)
    if not abs(measured.loss) < float("inf"):
        return fail(subject, f"{where}: the loss of the digits is {measured.loss}", remedy)
    if measured.weight_spread != 0:  # NaN too
        return fail(subject, f"{where}: their weights differ by {measured.weight_spread:g} after a step", remedy)
    rate = measured.num_bytes / measured.reduce_s / 2**20
    reduced = (
        f"all-reduce of {measured.num_bytes / 2**20:.0f} MiB in {measured.reduce_s * 1000:.1f} ms ({rate:,.0f} MiB/s)"
    )
    trained = f"{_NUM_STEPS} steps of the digits, loss {measured.loss:.2f}, equal weights"
    return ok(subject, f"{where}: {reduced}; {trained}; {elapsed_s:.0f} s")


def run_group(trial_dir: Path, *, use_gpu: bool) -> GroupMeasurement:
    """Start two workers, spread over the nodes, and return what they measured.

    Args:
        trial_dir: Ray Train's files go there.
    """
    per_worker = {"CPU": 1} | ({"GPU": 1} if use_gpu else {})
    scaling = ScalingConfig(
        num_workers=_NUM_WORKERS, use_gpu=use_gpu, resources_per_worker=per_worker, placement_strategy="SPREAD"
    )
    trainer = TorchTrainer(
        measure_worker,
        scaling_config=scaling,
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=_COLLECTIVE_TIMEOUT_S),
        run_config=RunConfig(name="check", storage_path=str(trial_dir.resolve())),
    )
    outcome: Any = trainer.fit().return_value
    return outcome


def measure_worker() -> GroupMeasurement:
    """Run in each worker: sum, train, compare."""
    torch.set_num_threads(1)
    context, device = train.get_context(), get_device()
    assert isinstance(device, torch.device)
    worker = Worker(context.get_world_rank(), context.get_world_size(), device)
    nodes: list[Any] = [None] * worker.world_size
    dist.all_gather_object(nodes, ray.get_runtime_context().get_node_id())
    is_right, reduce_s, num_bytes = _measure_sums(worker)
    loss, spread = _train_steps(worker)
    return GroupMeasurement(dist.get_backend(), tuple(sorted(set(nodes))), is_right, reduce_s, num_bytes, loss, spread)


def _measure_sums(worker: Any) -> tuple[bool, float, int]:
    """Sum a few MiB over the workers; the values are whole numbers, so the sum is exact."""
    own = torch.arange(_NUM_VALUES, device=worker.device, dtype=torch.float32) % 1024
    expected = own * sum(range(1, worker.world_size + 1))
    best_s, is_right = float("inf"), True
    for _ in range(_NUM_SUMS):
        values = own * (worker.rank + 1)
        worker.wait_for_all()
        started_s = time.perf_counter()
        worker.sum_over_workers(values)
        is_right &= torch.equal(values, expected)  # also waits for a GPU
        best_s = min(best_s, time.perf_counter() - started_s)
    return is_right, best_s, own.numel() * own.element_size()


def _train_steps(worker: Any) -> tuple[float, float]:
    """Make some steps with the pieces of our own loop; return the loss and how far the weights differ."""
    config = load_config(None, _SETTINGS).config
    splits = find_data(config.data, config.seed)
    config, _ = resolve_config(config, stats_of(splits))
    data = prepare_data(splits, config.data)
    share = share_phases(config, data, worker)[0]
    precision = share.parallel.precision
    state = build_state(config, class_names=data.class_names, worker=worker, precision=precision)
    stepper = Stepper(share.config, share.recipe, state, worker, precision)
    state.ddp_model.train()
    loss = float("nan")
    for batch in islice(share.batches.epoch(0, 0), _NUM_STEPS):  # one micro-batch a step: no limit is set
        stepper.begin()
        stepper.accumulate(batch)
        row = stepper.update(stepper.gradient_norm())
        loss = float(worker.sum_over_workers(row[0].clone())) / share.recipe.global_batch_size
    weights = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    highest, lowest = weights.clone(), weights.clone()
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
    return loss, float((highest - lowest).max())
