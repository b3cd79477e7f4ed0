"""Random damage to valid data folders and configs: one line or a sound run, no traceback, no hang, no label moved.

    python benchmarks/fuzz_folders.py --mutations 200 --seed 0

Every image that would be trained on or scored is held against its path, or against its row in the table. Prints what
each kind of damage led to; exits with 1 when something was wrong, and says how to repeat it.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
import csv
import io
import os
from pathlib import Path
import random
import shutil
import signal
import sys
import tempfile
import traceback
import unicodedata

import numpy as np
from PIL import Image

from raytricks.cli.main import main
from raytricks.config import load_config
from raytricks.data.loading import find_data
from raytricks.errors import RaytricksError

CLASSES = ("cat", "dog", "owl 2", "Öl")
ALLOWED_EXITS = (0, 2, 3)
LIMIT_S = 60
SETTINGS = ("workers=0", "model.name=resnet8", "model.width=8", "recipe.epochs=1", "tricks.warmup.epochs=0")


def picture(rng: random.Random, size: int = 12) -> Image.Image:
    generator = np.random.default_rng(rng.randrange(2**31))
    return Image.fromarray(generator.integers(0, 256, (size, size, 3)).astype(np.uint8))


def flat(root: Path, rng: random.Random) -> None:
    for name in CLASSES:
        fill(root / name, rng)


def split(root: Path, rng: random.Random) -> None:
    for part in ("train", "val"):
        for name in CLASSES:
            fill(root / part / name, rng)


def fill(folder: Path, rng: random.Random) -> None:
    folder.mkdir(parents=True)
    for number in range(rng.randint(6, 9)):
        picture(rng).save(folder / f"{number}.{rng.choice(('png', 'jpg'))}")


def table(root: Path, rng: random.Random) -> None:
    flat(root / "images", rng)
    rows = [(str(path.relative_to(root)), path.parent.name) for path in sorted((root / "images").rglob("*.*"))]
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


def some(root: Path, rng: random.Random, kind: Callable[[Path], bool]) -> Path:
    return rng.choice(sorted(path for path in root.rglob("*") if kind(path)))


def an_image(root: Path, rng: random.Random) -> Path:
    return some(root, rng, lambda path: path.is_file() and path.suffix in (".png", ".jpg"))


def a_folder(root: Path, rng: random.Random) -> Path:
    return some(root, rng, Path.is_dir)


def truncate(root: Path, rng: random.Random) -> None:
    path = an_image(root, rng)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def flip_bytes(root: Path, rng: random.Random) -> None:
    path = an_image(root, rng)
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def remove_image(root: Path, rng: random.Random) -> None:
    an_image(root, rng).unlink()


def remove_folder(root: Path, rng: random.Random) -> None:
    shutil.rmtree(a_folder(root, rng))


def empty_folder(root: Path, rng: random.Random) -> None:
    (a_folder(root, rng) / rng.choice(("new", "Cat", "train", "TEST", ".hidden", "__MACOSX"))).mkdir(exist_ok=True)


def stray_file(root: Path, rng: random.Random) -> None:
    name = rng.choice(
        (".DS_Store", "Thumbs.db", "._1.jpg", "notes.txt", "x.heic", "empty.png", "text.jpg", "no_suffix")
    )
    (a_folder(root, rng) / name).write_bytes(b"" if name == "empty.png" else b"not an image")


def rename_folder(root: Path, rng: random.Random) -> None:
    path = a_folder(root, rng)
    names = (path.name + " ", path.name.upper(), " " + path.name, "Training", "VALID", "test", "10", "9", "a" * 200)
    target = path.with_name(rng.choice(names))
    if not target.exists():
        path.rename(target)


def rename_image(root: Path, rng: random.Random) -> None:
    path = an_image(root, rng)
    name = rng.choice(
        (b"\xff\xfe.png", b"a\nb.png", "é.png".encode(), b"x.PNG", b"x", b"x.jpeg", b"'q\".png", b"x" * 200)
    )
    os.rename(path, os.path.join(os.fsencode(path.parent), name))  # noqa: PTH104, PTH118 (names of bytes)


def look_alike_class(root: Path, rng: random.Random) -> None:
    path = some(root, rng, lambda path: path.is_dir() and any(child.is_file() for child in path.iterdir()))
    twin = rng.choice((unicodedata.normalize("NFD", path.name), path.name.lower(), path.name + " ", path.name.title()))
    if not path.with_name(twin).exists():
        fill(path.with_name(twin), rng)


def link(root: Path, rng: random.Random) -> None:
    folder = a_folder(root, rng)
    target = rng.choice((root, folder, folder.parent, Path("/nowhere"), an_image(root, rng)))
    (folder / "link").symlink_to(target)


def wrap(root: Path, rng: random.Random) -> None:
    inner = root.with_name("inner")
    root.rename(inner)
    root.mkdir()
    inner.rename(root / rng.choice(("data", "train", "dataset v2")))


def odd_image(root: Path, rng: random.Random) -> None:
    path = an_image(root, rng)
    kinds: tuple[Callable[[], Image.Image], ...] = (
        lambda: Image.fromarray(np.full((12, 12), 4000, np.uint16)),
        lambda: Image.new("RGBA", (1, 40)),
        lambda: Image.new("1", (12, 12)),
        lambda: Image.new("P", (300, 2)),
    )
    rng.choice(kinds)().save(path.with_suffix(".png"))


def table_line(root: Path, rng: random.Random) -> None:
    path = root / "labels.csv"
    if not path.is_file():
        return truncate(root, rng)
    lines = path.read_text(encoding="utf-8").splitlines()
    place = rng.randrange(len(lines))
    lines[place] = rng.choice(
        (
            "",
            lines[place] + ",more",
            lines[place].replace(",", ";"),
            lines[place].replace(",", " ,"),
            "nowhere.png,cat",
            lines[place].partition(",")[0],
            "path,path",
            '"' + lines[place],
            lines[place] + " ",
        )
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    return None


DAMAGE = (
    truncate, flip_bytes, remove_image, remove_folder, empty_folder, stray_file, rename_folder, rename_image,
    look_alike_class, link, wrap, odd_image, table_line,
)  # fmt: skip

VALUES = (
    "null", "true", "-1", "0", "1e999", ".nan", "[]", "{}", "[1, 2]", "'x'", "2**3", "1_000", "０", "~", "resnet8",
    "timm:", "torchvision:nothing", "a.py:b", "999999999999999999999", "-0.0", "../../x", "s3://user:pw@host/x",
)  # fmt: skip


def damaged_config(path: Path, rng: random.Random) -> str:
    """Write a config with some keys at random values, or its text damaged; returns what was done."""
    from raytricks.config import dotted_keys

    keys = [key for key in sorted(dotted_keys()) if not key.startswith(("data.path", "output_dir"))]
    lines = [f"{rng.choice(keys)}: {rng.choice(VALUES)}" for _ in range(rng.randint(1, 2))]
    text = "\n".join([*lines, "recipe: {epochs: 1}", ""])
    if rng.random() < 0.4:
        place = rng.randrange(len(text))
        text = rng.choice((text[:place], text[:place] + rng.choice("\t{[&*!|>%@`'\":,\x00") + text[place:], text * 2))
    path.write_text(text, encoding="utf-8")
    return "config " + " / ".join(lines)


def run_cli(arguments: list[str]) -> tuple[int, str]:
    output, argv = io.StringIO(), sys.argv
    sys.argv = ["raytricks", *arguments]
    signal.alarm(LIMIT_S)
    try:
        with redirect_stderr(output), redirect_stdout(output):
            code = main()
    except SystemExit as stop:
        code = stop.code
    finally:
        signal.alarm(0)
        sys.argv = argv
    return int(code or 0), output.getvalue()


num_checked = 0
"""Images whose class was held against their path or row."""


def normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def wrong_labels(target: Path, root: Path) -> list[str]:
    """Return the images whose class is not that of their path or row."""
    try:
        splits = find_data(load_config(None, {"data.path": str(target)}).config.data, seed=0)
    except RaytricksError:
        return []
    rows: dict[str, str] = {}
    if target.is_file():
        text = target.read_text(encoding="utf-8")
        for row in csv.reader(text.splitlines(), delimiter=";" if text.startswith("path;") else ","):
            rows |= {str((root / row[0].strip()).resolve()): normal(row[1])} if len(row) > 1 else {}
    wrong = []
    global num_checked
    num_checked += len(splits.train) + len(splits.evaluation) + (len(splits.test) if splits.test else 0)
    for part in filter(None, (splits.train, splits.evaluation, splits.test)):
        for path, label in zip(part.images.paths, part.labels, strict=True):
            name = splits.class_names[label]
            names = {normal(parent) for parent in Path(os.path.relpath(path, root)).parts[:-1]}
            expected = {rows.get(str(Path(path).resolve()))} if rows else names
            if name not in expected:
                wrong.append(f"{path!r} is {name!r}")
    return wrong


def attempt(number: int, seed: int, folder: Path) -> tuple[str, int, list[str]]:
    """Make one mutation and try it; returns what was done, the exit code and what was wrong."""
    rng = random.Random(f"{seed}-{number}")
    root = folder / "data"
    base = rng.choice((flat, split, table))
    base(root, rng)
    arguments, done = list(SETTINGS), base.__name__
    if rng.random() < 0.3:
        done = damaged_config(folder / "x.yaml", rng)
        arguments = [str(folder / "x.yaml"), "data.path=" + str(root / ("labels.csv" if base is table else ""))]
    else:
        for _ in range(rng.randint(1, 3)):
            damage = rng.choice(DAMAGE)
            try:
                damage(root, rng)
            except (OSError, IndexError):  # the damage before it has left nothing to damage so
                continue
            done += f" {damage.__name__}"
        arguments.insert(0, str(root / "labels.csv" if base is table and (root / "labels.csv").exists() else root))
    problems = []
    try:
        code, output = run_cli(["train", *arguments, f"output_dir={folder / 'runs'}", *rng.choice(([], ["--dry-run"]))])
    except BaseException as error:
        return done, -1, [f"{type(error).__name__}: {error}", *traceback.format_exc().splitlines()[-6:]]
    if code not in ALLOWED_EXITS or "Traceback" in output:
        problems.append(f"exit {code}: {output[-400:]}")
    if code and not any(line.startswith("error: ") for line in output.splitlines()):
        problems.append(f"exit {code} without a line that says why: {output[-200:]}")
    if "config" not in done:
        target = root / "labels.csv" if base is table and (root / "labels.csv").exists() else root
        problems += wrong_labels(target, root)[:3]
    return done, code, problems


def fuzz(num_mutations: int, seed: int, first: int = 0) -> int:
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError(f"longer than {LIMIT_S} s")))
    exits: Counter[int] = Counter()
    num_wrong = 0
    for number in range(first, first + num_mutations):
        with tempfile.TemporaryDirectory() as folder:
            done, code, problems = attempt(number, seed, Path(folder))
        exits[code] += 1
        if problems:
            num_wrong += 1
            print(f"--seed {seed} --first {number} --mutations 1: {done}", *problems, sep="\n  ")
    codes = ", ".join(f"{count} ended with {code}" for code, count in sorted(exits.items()))
    print(f"{num_mutations} mutations, seed {seed}: {codes}; {num_wrong} wrong; {num_checked} labels checked")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    sys.exit(fuzz(given.mutations, given.seed, given.first))
