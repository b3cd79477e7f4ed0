"""What a run's weights come to when it is resumed on other hardware settings: rounding, or another run.

Each row trains the first half of the steps one way and the second half another way: memory format, number
of workers, images at once. All are held against the run that is trained the first row's way from beginning to end.
The model has GroupNorm: batch norm takes its statistics from the images of one pass, so these settings change it.

Command:   python benchmarks/resume_differences.py [--epochs 4] [--seeds 3]
Prints for each row the largest difference of a weight, as a part of the largest weight of its tensor, and the same
for the average, and the test images that the two runs answer differently; the largest over the seeds.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
import tempfile
from typing import Any

from safetensors.torch import load_file
import torch
from torch import distributed
import torch.multiprocessing as multiprocessing

from raytricks.config import load_config
from raytricks.data.loading import find_data
from raytricks.data.prepared import prepare_data
from raytricks.errors import InterruptedRun
from raytricks.inference.model_file import load_model
from raytricks.recipe.resolve import resolve_config, stats_of
from raytricks.training.loop import TrainingJob, run_epochs
from raytricks.training.worker import Worker

SETTINGS: dict[str, Any] = {
    "data.source": "digits",
    "data.horizontal_flip": False,
    "model.name": "resnet8",
    "model.width": 16,
    "model.norm": "group",
    "recipe.global_batch_size": 48,
    "tricks.warmup.epochs": 1.0,
    "tricks.ema.decay": 0.9,
    "hardware.precision": "fp32",
    "logging.tensorboard": False,
}
STEPS_PER_EPOCH = 1438 // 48
STOP = 15  # a signal's number


@dataclass(frozen=True)
class Way:
    """How steps are carried out.

    Attributes:
        images_per_device: "auto": all of a share at once.
    """

    workers: int = 1
    channels_last: bool = False
    images_per_device: int | str = "auto"

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        return f"{self.workers} worker{'s' if self.workers > 1 else ''}, {layout}, {self.images_per_device} at once"


FIRST = Way()
PAIRS = [
    (FIRST, FIRST),
    (FIRST, Way(channels_last=True)),
    (Way(channels_last=True), FIRST),
    (FIRST, Way(workers=2)),
    (Way(workers=2), FIRST),
    (Way(workers=3), Way(workers=2)),
    (FIRST, Way(images_per_device=7)),
    (Way(images_per_device=7), FIRST),
    (Way(workers=3, channels_last=True, images_per_device=5), Way(workers=2)),
]


def main() -> None:
    """Parse the command line, measure every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    worst: dict[tuple[Way, Way], list[float]] = {pair: [0.0, 0.0, 0.0] for pair in PAIRS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            place = Path(folder) / str(seed)
            whole = train(place / "whole", (FIRST, FIRST), arguments.epochs, seed, is_cut=False)
            for number, pair in enumerate(PAIRS):
                found = differences(train(place / str(number), pair, arguments.epochs, seed), whole)
                worst[pair] = [max(values) for values in zip(worst[pair], found, strict=True)]
    print(f"{arguments.epochs * STEPS_PER_EPOCH} steps, {arguments.seeds} seeds      weights     average   answers")
    for (before, after), (weights, average, answers) in worst.items():
        print(f"{weights:10.1e}  {average:10.1e}  {answers:7.0f}   {before}  ->  {after}")


def train(run_dir: Path, pair: tuple[Way, Way], epochs: int, seed: int, *, is_cut: bool = True) -> Path:
    """Train half of the steps one way and the rest another way, in processes of their own."""
    run_dir.mkdir(parents=True)
    steps = epochs * STEPS_PER_EPOCH // 2 + 3  # in the middle of an epoch
    for way, until in ((pair[0], steps if is_cut else None), *([(pair[1], None)] if is_cut else [])):
        meeting = f"file://{run_dir}/meeting-{until}"
        arguments = (way, run_dir, epochs, seed, until, meeting)
        multiprocessing.start_processes(carry_out, arguments, nprocs=way.workers, start_method="forkserver")
    return run_dir


def carry_out(rank: int, way: Way, run_dir: Path, epochs: int, seed: int, until: int | None, meeting: str) -> None:
    """Train one worker's share, to the end or until a step."""
    torch.set_num_threads(1)
    if way.workers > 1:
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=way.workers)
    settings = {
        "recipe.epochs": epochs,
        "seed": seed,
        "hardware.channels_last": way.channels_last,
        "hardware.images_per_device": way.images_per_device,
    }
    config = load_config(None, SETTINGS | settings).config
    catalog = find_data(config.data, 0)
    config, _ = resolve_config(config, stats_of(catalog))
    job = TrainingJob(config=config, data=prepare_data(catalog, config.data), run_dir=run_dir)
    steps_made = iter(range(1, 10**6))
    try:
        list(
            run_epochs(job, Worker(rank, way.workers), stop_requested=lambda: STOP if next(steps_made) == until else 0)
        )
    except InterruptedRun:
        if until is None:
            raise
    if way.workers > 1:
        distributed.destroy_process_group()


def differences(run_dir: Path, other: Path) -> list[float]:
    """Return the largest relative difference of the weights and of their average, and the answers that differ."""
    found = [
        max(
            float((value - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-12))
            for name, value in load_file(run_dir / file).items()
            if value.is_floating_point()
        )
        for file in ("model.safetensors", "model_ema.safetensors")
        for theirs in [load_file(other / file)]
    ]
    return [*found, float((answers(run_dir) != answers(other)).sum())]


@torch.no_grad()
def answers(run_dir: Path) -> torch.Tensor:
    """Return what the model says of the held-out images."""
    config = load_config(None, SETTINGS).config
    catalog = find_data(config.data, 0)
    config, _ = resolve_config(config, stats_of(catalog))
    data = prepare_data(catalog, config.data)
    assert data.evaluation is not None
    pixels = torch.from_numpy(data.evaluation.images.pixels)  # type: ignore[attr-defined]
    trained = load_model(run_dir)
    return trained.model(trained.preprocess.transform.normalize(pixels)).argmax(dim=1)


if __name__ == "__main__":
    main()
