"""`raytricks data` as a user types it: pack, train from it, look at it, and every way to get it wrong."""

import io
import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
from safetensors.torch import load_file
from sklearn.datasets import load_digits, load_sample_images
import torch

from raytricks.cli.main import main
from raytricks.data.pack import pack

ROOT = Path(__file__).parents[2]


def photos(directory: str = "photos", count: int = 4) -> None:
    for label, photo in enumerate(load_sample_images().images):
        for i in range(count):
            path = Path(directory, ("china", "flower")[label], f"{i}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo[i : i + 300, i : i + 400]).save(path, quality=95)


def digit_folder(directory: str = "digits8", count: int = 60) -> None:
    found = load_digits()
    for i in range(count):
        path = Path(directory, f"class{found.target[i] % 2}", f"{i:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((found.images[i] * 15).astype(np.uint8)).save(path)


def packed() -> None:
    digit_folder()
    pack("digits8", "packed", workers=1)


def test_cli_data_pack_then_info_then_a_contact_sheet(shell):
    photos()
    code, out, err = shell("data", "pack", "photos", "small", "--short-side", "100", "--workers", "1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "packed: 8 images of 2 classes (train 8), shards: 1"
    assert lines[1].startswith("bytes: ") and lines[1].endswith("; 8 made smaller")
    assert lines[2] == "next: raytricks train small    (large enough for data.image_size up to 88)"
    code, out, err = shell("data", "pack", "photos", "small", "--short-side", "100")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "already packed: 8 images of 2 classes (train 8), shards: 1"
    code, out, err = shell("data", "info", "small", "--verify", "--contact-sheet", "sheet.png")
    assert (code, err) == (0, "")
    assert "photos (shards)" in out and "2: china, flower" in out and "a class has 4 each" in out
    assert "height 100/100/100, width 133/133/133 px" in out and "duplicates  none" in out
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.height == 204
    assert sorted(path.name for path in Path().iterdir()) == ["photos", "sheet.png", "small"]


def test_cli_data_info_as_json_prints_json_only(shell):
    digit_folder()
    code, out, err = shell("data", "info", "digits8", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["class_names"] == ["class0", "class1"]
    assert sum(found["splits"]["train"]["class_counts"]) == 60


def test_cli_data_pack_lists_what_it_leaves_out(shell):
    digit_folder()
    for name in ("class0/000.png", "class1/001.png"):
        Path("digits8", name).write_text("text")
    code, out, err = shell("data", "pack", "digits8", "packed")
    assert code == 3 and err.count("\n") == 1
    assert "class0/000.png" in err and "--max-corrupt N" in err
    code, out, err = shell("data", "pack", "digits8", "packed", "--max-corrupt", "1")
    assert code == 3 and err.count("error: ") == 3 and "class1/001.png" in err
    code, out, err = shell("data", "pack", "digits8", "packed", "--max-corrupt", "2")
    assert (code, err) == (0, "")
    assert "packed: 58 images" in out and "left out, unreadable: 2" in out
    assert "  digits8/class0/000.png: " in out


def test_cli_data_info_lists_unreadable_images(shell):
    digit_folder()
    for i in range(0, 60, 2):
        for path in Path("digits8").rglob(f"{i:03}.png"):
            path.write_text("text")
    code, out, err = shell("data", "info", "digits8")
    assert (code, err) == (0, "")
    assert "unreadable  30\n" in out and out.count("is no image") == 20 and "... and 10 more" in out
    code, out, err = shell("data", "info", "digits8", "--verify")
    assert code == 3 and err == "error: digits8: 30 images cannot be read; restore or remove them\n"


def test_cli_header_says_which_folder_and_which_index_became_what(shell):
    digit_folder("photos/Training", 40)
    digit_folder("photos/Testing", 12)
    Path("photos/Training/class0/.DS_Store").write_text("")
    for number in range(9):
        Path(f"photos/Training/class1/{number}.mov").write_bytes(bytes(9))
    code, out, err = shell("train", "photos", "--dry-run")
    assert (code, err) == (0, "")
    assert "40 to train on (Training), 12 to evaluate on (Testing)" in out
    assert "classes   2: 0 = class0 (19), 1 = class1 (21)" in out
    assert "doctor    warning data: photos: 'Training/class1' loses 9 of 30 files (9 .mov)" in out
    assert "note      photos: skipped hidden and system files and folders: .DS_Store" in out
    assert "doctor    warning data: 12 of 12 images of Testing are in train too" in out
    code, out, err = shell("doctor", "photos")
    assert code == 0 and out.count("data: ") == 2
    code, out, err = shell("train", "photos", "--dry-run", "--strict")
    assert code == 2 and "'Training/class1' loses 9 of 30 files" in err
    code, out, err = shell("data", "pack", "photos", "packed", "--workers", "1")
    assert (code, err) == (0, "")
    assert "note: photos: skipped hidden and system files" in out


def test_cli_trains_on_a_table(shell):
    digit_folder()
    rows = [f"{path},{path.parent.name}" for path in sorted(Path().rglob("*.png"))]
    Path("labels.csv").write_text("\n".join(["path,label", *rows, ""]))
    code, out, err = shell("train", "labels.csv", "recipe.epochs=1", "model.width=8", "tricks.warmup.epochs=0")
    assert (code, err) == (0, "")
    assert "of 12 images (20% held out of train)" in out
    for command in (("doctor", "labels.csv"), ("check", "labels.csv"), ("data", "info", "labels.csv")):
        code, out, err = shell(*command)
        assert (code, err) == (0, "")


def test_cli_data_layout_decides(shell):
    for name in ("train/steam", "train/diesel", "bus"):
        digit_folder(f"vehicles/{name}", 4)
    code, out, err = shell("data", "info", "vehicles")
    assert code == 3 and "set data.layout=splits or data.layout=classes" in err
    code, out, err = shell("data", "info", "vehicles", "--layout", "classes")
    assert (code, err) == (0, "") and "classes     2: bus, train" in out
    code, out, err = shell("data", "pack", "vehicles", "packed", "--layout", "splits")
    assert (code, err) == (0, "") and "of 2 classes" in out
    code, out, err = shell("data", "info", "vehicles", "--layout", "folders")
    assert code == 2 and err.count("\n") <= 3


def test_cli_trains_from_shards_as_from_the_folder(shell):
    packed()
    tiny = [
        "model.name=resnet8", "model.width=8", "recipe.epochs=2", "recipe.global_batch_size=8",
        "tricks.warmup.epochs=1", "hardware.precision=fp32", "logging.tensorboard=false", "workers=0",
        "data.horizontal_flip=false",
    ]  # fmt: skip
    weights = []
    for target, name in (("digits8", "a"), ("packed", "b"), ("packed", "c")):
        more = ["data.cache_gib=0.0"] if name == "c" else []
        code, _, err = shell("train", target, *tiny, *more, f"name={name}", "--quiet")
        assert (code, err) == (0, "")
        weights.append(load_file(f"runs/{name}/model.safetensors"))
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
        assert torch.equal(value, weights[2][name])


def in_use() -> None:
    packed()
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("")


def truncated() -> None:
    packed()
    os.truncate("packed/train-00000.arrow", 100)


def unfinished() -> None:
    packed()
    Path("packed/dataset.json").rename("packed/pack-state.json")


ROWS = {
    "no source": (photos, ["pack", "phots", "out"], 3, ["phots", "no such data directory"]),
    "no such table": (photos, ["pack", "list.csv", "out"], 3, ["list.csv", "no such file"]),
    "out in use": (in_use, ["pack", "digits8", "out"], 2, ["out", "holds other files", "choose another name"]),
    "out is another pack": (packed, ["pack", "digits8", "packed", "--short-side", "4"], 2, ["packed from", "settings"]),
    "out within the source": (photos, ["pack", "photos", "photos/out"], 2, ["lies within the source"]),
    "no out": (photos, ["pack", "photos"], 2, ["out", "data pack --help"]),
    "negative side": (photos, ["pack", "photos", "o", "--short-side", "-1"], 2, ["--short-side", "--help"]),
    "no side": (photos, ["pack", "photos", "o", "--short-side", "small"], 2, ["--short-side", "--help"]),
    "no workers": (photos, ["pack", "photos", "o", "--workers", "0"], 2, ["--workers", "--help"]),
    "unknown option": (photos, ["pack", "photos", "o", "--size", "3"], 2, ["--size", "data pack --help"]),
    "info of nothing": (photos, ["info", "phots"], 3, ["phots", "no such data directory"]),
    "info of an empty folder": (lambda: Path("e").mkdir(), ["info", "e"], 3, ["holds nothing"]),
    "info of a truncated shard": (truncated, ["info", "packed"], 3, ["train-00000.arrow", "holds 100 bytes"]),
    "info of an unfinished pack": (unfinished, ["info", "packed"], 3, ["was not finished", "raytricks data pack"]),
    "sheet of another kind": (photos, ["info", "photos", "--contact-sheet", "s.jpg"], 2, ["s.jpg", ".png"]),
    "sheet without a place": (photos, ["info", "photos", "--contact-sheet", "no/s.png"], 2, ["no/s.png", "cannot be"]),
    "unknown command": (photos, ["pakc", "photos"], 2, ["pakc", "Did you mean 'pack'"]),
}


@pytest.mark.parametrize("row", ROWS)
def test_cli_data_bad_input_is_one_clear_line(shell, row):
    prepare, arguments, code, parts = ROWS[row]
    prepare()
    before = sorted(Path().rglob("*"))
    got, _, err = shell("data", *arguments)
    assert got == code, err
    assert err.startswith("error: ") and err.count("\n") == 1
    for part in parts:
        assert part in err
    assert sorted(Path().rglob("*")) == before  # nothing was made


@pytest.mark.parametrize("arguments", [["data"], ["data", "pack", "--help"], ["data", "info", "-h"], ["data", "pack"]])
def test_cli_data_help(shell, arguments):
    code, out, err = shell(*arguments)
    assert code == (0 if len(arguments) == 3 else 2)
    assert "Usage" in out + err or "source" in err
    assert "Traceback" not in err


def test_cli_data_help_imports_nothing_heavy():
    code = (
        "import sys, raytricks.cli.main;"
        "print([m for m in ('torch', 'torchvision', 'pyarrow', 'PIL', 'numpy', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Terminal(io.StringIO):
    """A stderr that is one."""

    def isatty(self) -> bool:
        return True


def test_cli_data_pack_draws_a_bar_on_a_terminal_only(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    digit_folder()
    monkeypatch.setattr(sys, "argv", ["raytricks", "data", "pack", "digits8", "packed", "--workers", "1"])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "packing" in terminal.getvalue() and "100%" in terminal.getvalue()
    out = capsys.readouterr().out
    assert out.startswith("packed: 60 images") and "\x1b" not in out
