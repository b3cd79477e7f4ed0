"""What our loop costs over a minimal PyTorch loop, and what Ray Train adds to it.

Three ways to train the model of configs/fashion_mnist.yaml on the same images, batch and
threads, taking turns in one run, so that whatever else the machine does hits all alike:

    plain     index, flip, normalise, forward, cross-entropy, backward, SGD; nothing else
    loop      run_epochs in this process (workers: 0)
    ray       run_epochs in one Ray Train worker (workers: 1)

Command:   python benchmarks/loop_overhead.py [--rounds 5] [--images 6400]
Prints images/s of each round (median of the epochs after the first), medians over the rounds
and the ratios to plain of the same round.
"""

import argparse
from dataclasses import replace
import json
from pathlib import Path
import statistics
import tempfile
import time

import torch
import torch.nn.functional as F

import raytricks
from raytricks.cluster.driver import train_on_ray
from raytricks.cluster.session import ray_session
from raytricks.data.prepared import LabelledImages, PreparedData, prepare_data
from raytricks.data.store import UniformStore
from raytricks.models.registry import build_model
from raytricks.training.allocator import keep_freed_memory
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.worker import Worker

CONFIG = Path(__file__).parent.parent / "configs" / "fashion_mnist.yaml"
EPOCHS = 4
THREADS = 1


def main() -> None:
    """Run the rounds and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=6400)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    job = make_job(arguments.images)
    results: list[dict[str, float]] = []
    with ray_session():
        for number in range(arguments.rounds):
            row = {"plain": plain(job), "loop": loop(job), "ray": on_ray(job)}
            results.append(row)
            print(f"round {number + 1}  " + "  ".join(f"{k} {v:,.0f} img/s" for k, v in row.items()), flush=True)
    medians = {name: statistics.median(r[name] for r in results) for name in results[0]}
    ratios = {name: statistics.median(r[name] / r["plain"] for r in results) for name in ("loop", "ray")}
    print(json.dumps({"median_images_per_second": medians, "median_ratio_to_plain": ratios}, indent=1))


def make_job(num_images: int) -> TrainingJob:
    """Cut the data down to a few images; keep everything else of the config."""
    overrides = {
        "workers": 1,
        "recipe.epochs": EPOCHS,
        "tricks.warmup.epochs": 1.0,
        "data.shift_pixels": 0,
        "hardware.cpus_per_worker": THREADS,
        "hardware.precision": "fp32",
    }
    plan = raytricks.plan_run(CONFIG, overrides)
    data = prepare_data(plan.catalog, plan.config.data)
    small = replace(data, train=_first(data.train, num_images), evaluation=_first(data.evaluation, 256), test=None)
    return TrainingJob(config=plan.config, data=small, run_dir=Path("unset"))


def _first(split: LabelledImages, count: int) -> LabelledImages:
    assert isinstance(split.images, UniformStore)
    return LabelledImages(UniformStore(split.images.pixels[:count]), split.labels[:count], split.origin)


def plain(job: TrainingJob) -> float:
    """Train as a few lines of PyTorch would; returns images/s."""
    config, data = job.config, job.data
    torch.manual_seed(0)
    model = _model(job, data).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    assert isinstance(data.train.images, UniformStore)
    images, labels = torch.from_numpy(data.train.images.pixels.copy()), torch.from_numpy(data.train.labels)
    mean, std = (255 * torch.tensor(v).view(1, -1, 1, 1) for v in (data.transform.mean, data.transform.std))
    batch, speeds = config.recipe.global_batch_size, []
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        started_s = time.perf_counter()
        num_steps = len(images) // batch
        for step in range(num_steps):
            chosen = order[step * batch : (step + 1) * batch]
            inputs = images[chosen]
            inputs = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, inputs.flip(3), inputs)
            inputs = ((inputs - mean) / std).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(inputs), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        speeds.append(num_steps * batch / (time.perf_counter() - started_s))
    return statistics.median(speeds[1:])


def _model(job: TrainingJob, data: PreparedData) -> torch.nn.Module:
    assert job.config.data.image_size is not None
    return build_model(
        job.config.model,
        num_classes=data.num_classes,
        in_channels=data.channels,
        image_size=job.config.data.image_size,
    )


def loop(job: TrainingJob) -> float:
    """Train with our loop in this process; returns images/s."""
    with tempfile.TemporaryDirectory() as folder:
        here = replace(job, run_dir=Path(folder))
        return _speed(list(run_epochs(here, Worker())))


def on_ray(job: TrainingJob) -> float:
    """Train with our loop in one Ray Train worker; returns images/s."""
    records: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        there = replace(job, run_dir=Path(folder))
        train_on_ray(there, use_gpu=False, listener=records.append, stop_requested=lambda: 0)
    return _speed([r for r in records if r["kind"] == "epoch"])


def _speed(epochs: list[dict]) -> float:
    return statistics.median(r["images_per_second"] for r in epochs[1:])


if __name__ == "__main__":
    main()
