"""How fast `raytricks predict` is beside its parts: decoding alone, the model alone, and a plain loop of both.

    python benchmarks/predict_speed.py MODEL FOLDER [--rounds 3] [--top 5]

The plain loop is what a user would write: a thread pool decodes a batch, then the model answers it. All use the same
model and decoder, in one process, by turns. Memory: resident MiB after a fifth of the images and at the end.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
import tempfile
import time

import torch

import raytricks
from raytricks.inference.images import find_images
from raytricks.limits import usable_cpus
from raytricks.use.predicting import predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model, images = raytricks.load(arguments.model), find_images(arguments.folder)
    batch = model.execution.batch_size
    batches = [range(a, min(a + batch, len(images))) for a in range(0, len(images), batch)]
    pool = ThreadPoolExecutor(usable_cpus())

    def decoded(rows: range) -> torch.Tensor:
        return torch.stack(list(pool.map(lambda i: model.preprocess.of_encoded(images.read(i), images.name(i)), rows)))

    squares = decoded(batches[0])

    def decode() -> None:
        for rows in batches:
            decoded(rows)

    def answer() -> None:
        for rows in batches:
            model.logits_of_squares(squares[: len(rows)]).cpu()

    def loop() -> None:
        for rows in batches:
            model.logits_of_squares(decoded(rows)).softmax(1).topk(5).indices.tolist()

    def ours() -> None:
        seen: list[float] = []
        with tempfile.TemporaryDirectory() as folder:

            def watch(done: int, total: int) -> None:
                if not seen and done >= total / 5 or done == total:
                    seen.append(_resident_mib())

            predict(arguments.model, arguments.folder, Path(folder) / "out.parquet", progress=watch)
        memory.append(tuple(seen))

    memory: list[tuple[float, ...]] = []
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for work in (decode, answer, loop, ours):
            started_s = time.perf_counter()
            work()
            seconds.setdefault(work.__name__, []).append(time.perf_counter() - started_s)
    rates = {name: len(images) / median(times) for name, times in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:<8} {rate:10,.0f} images/s   ({', '.join(f'{s:.2f} s' for s in seconds[name])})")
    print(f"ours / plain loop: {rates['ours'] / rates['loop']:.2f}")
    print(f"ours / the slower of decoding and model: {rates['ours'] / min(rates['decode'], rates['answer']):.2f}")
    print("memory  ", "; ".join(" -> ".join(f"{mib:,.0f}" for mib in seen) for seen in memory), "MiB")


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
