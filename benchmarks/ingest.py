"""Images per CPU-second from JPEG files to augmented training batches, ours against what scripts do.

    python benchmarks/ingest.py --rounds 5

Makes a folder of JPEGs of about 500 x 375 (quality 90, cut out of the two photographs in scikit-learn) and
the same packed with a short side of 256, then takes turns, round by round, between

    reference   torchvision's ImageFolder and DataLoader in the process: PIL, float, one image at a time
    bare        decode_jpeg, v2.resized_crop, flip and normalisation in a loop, nothing else
    originals   our batches from the folder        packed      our batches from the shards
    simplejpeg  packed, with data.decoder=simplejpeg

CPU time of the process counts, so that other programs and the number of threads do not; one thread
decodes. Also small images: 28 x 28 in memory against a per-sample DataLoader.
"""

import argparse
from dataclasses import replace
import json
from pathlib import Path
import statistics
import tempfile
import time

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images
import torch
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode
from torchvision.transforms import v2

from raytricks.data.batches import TrainBatches
from raytricks.data.pack import pack
from raytricks.data.prepared import LabelledImages, prepare_data
from raytricks.data.store import UniformStore
from raytricks.plan import plan_run
from raytricks.training.allocator import keep_freed_memory

BATCH = 64
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def make_folder(folder: Path, count: int) -> None:
    """Write JPEGs of two classes: crops of a photograph at random places, turned up to 500 pixels wide."""
    rng = np.random.default_rng(0)
    for label, photo in enumerate(load_sample_images().images):
        image = Image.fromarray(photo)
        for number in range(count // 2):
            width = int(rng.integers(400, 640))
            height = min(427, width * 3 // 4)
            left, top = int(rng.integers(0, 641 - width)), int(rng.integers(0, 428 - height))
            path = folder / f"class{label}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.crop((left, top, left + width, top + height)).resize((500, 375)).save(path, quality=90)


def our_batches(source: Path, side: int, decoder: str = "torchvision") -> TrainBatches:
    """Return training batches that one thread decodes in every epoch."""
    settings = {"image_size": side, "cache_gib": 0.0, "augmentation": "random_resized_crop", "decoder": decoder}
    plan = plan_run(source, {f"data.{key}": value for key, value in settings.items()})
    data = prepare_data(plan.splits, plan.config.data)
    data.train.images.num_threads = 1
    return batches_of(data.train, data.transform, BATCH)


def batches_of(split: LabelledImages, transform, size: int) -> TrainBatches:
    return TrainBatches(
        data=split,
        transform=transform,
        global_batch_size=size,
        rank=0,
        world_size=1,
        images_per_device=None,
        seed=0,
        device=torch.device("cpu"),
        with_neighbours=False,
    )


def rate(run, *arguments) -> float:
    """Return images per CPU-second of a function that returns how many it made."""
    started_s = time.process_time()
    count = run(*arguments)
    return count / (time.process_time() - started_s)


def count_ours(batches: TrainBatches, epoch: int) -> int:
    return sum(len(batch.inputs) for batch in batches.epoch(epoch))


def reference(folder: Path, side: int):
    steps = [v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip(), v2.ToImage()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    loader = torch.utils.data.DataLoader(
        ImageFolder(str(folder), v2.Compose(steps)), BATCH, shuffle=True, drop_last=True
    )
    return lambda: sum(len(images) for images, _ in loader)


def bare(folder: Path, side: int):
    paths = sorted(folder.rglob("*.jpg"))
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def run() -> int:
        for path in paths:
            content = torch.from_numpy(np.fromfile(path, np.uint8))
            image = torch.ops.image.decode_jpeg(content, ImageReadMode.RGB.value, False)
            box = v2.RandomResizedCrop.make_params(v2.RandomResizedCrop(side), [image])
            image = v2.functional.resized_crop(image, **box, size=[side, side], antialias=True)
            image = image.flip(2) if torch.rand(()) < 0.5 else image
            image.to(torch.float32).sub_(mean).div_(std)
        return len(paths)

    return run


def measure(contestants: dict, rounds: int) -> dict[str, float]:
    """Let each take its turn in every round; return medians."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            value = rate(run) if number else run()  # the first round warms the page cache
            if number:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def small_images(rounds: int) -> dict[str, float]:
    """Augment 28 x 28 images held in memory, by the batch and by the sample."""
    pixels = np.random.default_rng(0).integers(0, 256, (20_000, 1, 28, 28), dtype=np.uint8)
    plan = plan_run(None, {"data.source": "digits", "data.image_size": 28, "data.shift_pixels": 4})
    data = prepare_data(plan.splits, plan.config.data)
    split = LabelledImages(UniformStore(pixels), np.zeros(len(pixels), np.int64), "noise")
    ours = batches_of(split, replace(data.transform, horizontal_flip=True), 512)
    steps = [v2.RandomCrop(28, padding=4), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    compose = v2.Compose([*steps, v2.Normalize([0.3], [0.3])])
    samples = [torch.from_numpy(image) for image in pixels[:4096]]

    class Samples(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, index: int):
            return compose(samples[index]), 0

    loader = torch.utils.data.DataLoader(Samples(), 512, shuffle=True)
    return measure(
        {"batched": lambda: count_ours(ours, 0), "per sample": lambda: sum(len(x) for x, _ in loader)}, rounds
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does; it serves all contestants
    with tempfile.TemporaryDirectory() as temporary:
        folder, packed = Path(temporary, "photos"), Path(temporary, "packed")
        make_folder(folder, arguments.images)
        pack(folder, packed, short_side=256)
        for side in (176, 224):
            originals, shards = our_batches(folder, side), our_batches(packed, side)
            simplejpeg = our_batches(packed, side, "simplejpeg")
            rates = measure(
                {
                    "reference": reference(folder, side),
                    "bare": bare(folder, side),
                    "originals": lambda o=originals: count_ours(o, 0),
                    "packed": lambda s=shards: count_ours(s, 0),
                    "simplejpeg": lambda s=simplejpeg: count_ours(s, 0),
                },
                arguments.rounds,
            )
            ratios = {name: round(value / rates["reference"], 2) for name, value in rates.items()}
            print(json.dumps({"side": side, "images_per_cpu_second": rates, "of_reference": ratios}), flush=True)
    small = small_images(arguments.rounds)
    print(json.dumps({"side": 28, "images_per_cpu_second": small, "ratio": small["batched"] / small["per sample"]}))


if __name__ == "__main__":
    main()
