"""What our loop costs over a minimal PyTorch loop, in a process of its own and in a Ray Train worker.

The model of configs/fashion_mnist.yaml is trained on the same images, batch and one thread by

    plain     index, flip, normalise, forward, cross-entropy, backward, SGD; nothing else
    ours      run_epochs: also order, augmentation per sample, metrics, gradient norm, checks

taking turns every epoch of a few steps, so that whatever else the machine does hits both alike.
This is done in this process (workers: 0) and, again, in a Ray Train worker that reports each
epoch as `raytricks train` does (workers: 1).

Command:   python benchmarks/loop_overhead.py [--pairs 15] [--images 2560]
Prints the median over the pairs of ours / plain, in images/s of wall time, and the quartiles.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
import statistics
import tempfile
import time

import torch
import torch.nn.functional as F

import raytricks
from raytricks.cluster.session import ray_session
from raytricks.data.prepared import LabelledImages, PreparedData, prepare_data
from raytricks.data.store import UniformStore
from raytricks.models.registry import build_model
from raytricks.training.allocator import keep_freed_memory
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.worker import Worker

CONFIG = Path(__file__).parent.parent / "configs" / "fashion_mnist.yaml"
THREADS = 1


def main() -> None:
    """Compare in this process and in a Ray Train worker; print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--images", type=int, default=2560)
    arguments = parser.parse_args()
    job = make_job(arguments.images, arguments.pairs)
    show("workers: 0", compare(job))
    show("workers: 1", compare_in_ray_worker(job))


def show(name: str, pairs: list[tuple[float, float]]) -> None:
    """Print the median speeds and the quartiles of the ratio."""
    low, middle, high = statistics.quantiles([ours / plain for plain, ours in pairs], n=4)
    plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{name}  plain {plain:,.0f} img/s  ours {ours:,.0f} img/s  ratio {middle:.3f} ({low:.3f} to {high:.3f})")


def make_job(num_images: int, pairs: int) -> TrainingJob:
    """Cut the data down to a few images; keep everything else of the config."""
    overrides = {
        "recipe.epochs": pairs + 1,
        "data.shift_pixels": 0,
        "hardware.precision": "fp32",
        "logging.tensorboard": False,
    }
    plan = raytricks.plan_run(CONFIG, overrides)
    data = prepare_data(plan.splits, plan.config.data)
    small = replace(data, train=_first(data.train, num_images), evaluation=_first(data.evaluation, 256), test=None)
    return TrainingJob(config=plan.config, data=small, run_dir=Path("unset"))


def compare(job: TrainingJob, report: Callable[[dict], None] = lambda _: None) -> list[tuple[float, float]]:
    """Train alternately; returns (plain, ours) images/s of each pair but the first, which warms up."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        train_plainly = plain(job)
        for record in run_epochs(replace(job, run_dir=Path(folder)), Worker()):
            report({"epoch": record["epoch"]})
            pairs.append((next(train_plainly), record["images_per_second"]))
    return pairs[1:]


def compare_in_ray_worker(job: TrainingJob) -> list[tuple[float, float]]:
    """Do the same inside a Ray Train worker."""
    with ray_session(), tempfile.TemporaryDirectory() as folder:
        import ray
        from ray.train import RunConfig, ScalingConfig, report
        from ray.train.torch import TorchTrainer

        reference = ray.put(job)
        trainer = TorchTrainer(
            lambda: compare(ray.get(reference), report),
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(name="overhead", storage_path=folder),
        )
        return trainer.fit().return_value


def _first(split: LabelledImages, count: int) -> LabelledImages:
    assert isinstance(split.images, UniformStore)
    return LabelledImages(UniformStore(split.images.pixels[:count]), split.labels[:count], split.origin)


def plain(job: TrainingJob):
    """Train as a few lines of PyTorch would; yields images/s of each epoch."""
    data = job.data
    torch.manual_seed(0)
    model = _model(job, data).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    assert isinstance(data.train.images, UniformStore)
    images, labels = torch.from_numpy(data.train.images.pixels.copy()), torch.from_numpy(data.train.labels.copy())
    mean, std = (255 * torch.tensor(v).view(1, -1, 1, 1) for v in (data.transform.mean, data.transform.std))
    batch = job.config.recipe.global_batch_size
    num_steps = len(images) // batch
    while True:
        order = torch.randperm(len(images))
        started_s = time.perf_counter()
        for step in range(num_steps):
            chosen = order[step * batch : (step + 1) * batch]
            inputs = images[chosen]
            inputs = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, inputs.flip(3), inputs)
            inputs = ((inputs - mean) / std).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(inputs), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield num_steps * batch / (time.perf_counter() - started_s)


def _model(job: TrainingJob, data: PreparedData) -> torch.nn.Module:
    assert job.config.data.image_size is not None
    return build_model(
        job.config.model,
        num_classes=data.num_classes,
        in_channels=data.channels,
        image_size=job.config.data.image_size,
    )


if __name__ == "__main__":
    main()
