"""Seconds and memory of a start with very many files: the first, and the next one.

    python benchmarks/many_files.py --files 1000000 --folder /tmp/many

Makes hard links to a few tiny JPEGs in 100 class folders, then runs `raytricks train FOLDER --dry-run` twice.
"""

import argparse
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
from PIL import Image

CLASSES, LINKS_A_FILE = 100, 20_000


def make(folder: Path, num_files: int) -> None:
    rng = np.random.default_rng(0)
    source = folder / "source"
    source.mkdir(parents=True)
    for number in range(num_files):
        file = source / f"{number // LINKS_A_FILE}.jpg"
        if number % LINKS_A_FILE == 0:
            Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(file)
        place = folder / "data" / f"class{number % CLASSES:03}"
        if number < CLASSES:
            place.mkdir(parents=True)
        os.link(file, place / f"image-{number:08}.jpg")


def start(folder: Path) -> tuple[float, float]:
    """Return seconds and the largest resident size, MiB, of one start."""
    command = [str(Path(sys.executable).with_name("raytricks")), "train", str(folder / "data"), "--dry-run"]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "workers=0"], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, output
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    small = given.folder / "small"
    make(small, 1000)
    base = min(start(small) for _ in range(2))
    make(given.folder / "large", given.files)
    print(f"1,000 files: {base[0]:.1f} s, {base[1]:.0f} MiB")
    for turn in ("first", "second"):
        seconds, mib = start(given.folder / "large")
        per_file = (seconds - base[0]) / given.files * 1e6, (mib - base[1]) / given.files * 2**20
        print(
            f"{given.files:,} files, {turn} start: {seconds:.1f} s, {mib:.0f} MiB; "
            f"{per_file[0]:.0f} us and {per_file[1]:.0f} bytes a file"
        )
    kept = sum(file.stat().st_size for file in (given.folder / "large" / "cache").rglob("*.npz"))
    print(f"kept for the next start: {kept / 2**20:.1f} MiB")
