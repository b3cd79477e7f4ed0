"""Bad input of every kind: one line that names it and says what to do, the right exit code, no traces."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits
import torch

from raytricks import __version__
from raytricks.cli.arguments import with_resume_value

TINY = {
    "model.name": "resnet8",
    "model.width": "8",
    "recipe.epochs": "2",
    "recipe.global_batch_size": "4",
    "tricks.warmup.epochs": "1",
    "hardware.precision": "fp32",
    "logging.tensorboard": "false",
    "workers": "0",
}


def tiny(*settings: str) -> list[str]:
    """Return the settings of a tiny run, with these instead of or besides its own."""
    return [f"{key}={value}" for key, value in (TINY | dict(s.split("=", 1) for s in settings)).items()]


def digits(*settings: str) -> list[str]:
    return tiny("data.source=digits", *settings)


def class_folder(directory: Path, label: int = 0, count: int = 6) -> None:
    directory.mkdir(parents=True)
    found = load_digits()
    for number, image in enumerate(found.images[found.target == label][:count]):
        Image.fromarray((image * 15).astype(np.uint8)).save(directory / f"{number}.png")


def two_classes(directory: Path = Path("photos"), names: tuple[str, str] = ("cat", "dog")) -> None:
    for label, name in enumerate(names):
        class_folder(directory / name, label)


def empty_file(path: str) -> None:
    Path(path).write_text("")


def flat_images() -> None:
    class_folder(Path("photos"))


def class_without_images() -> None:
    class_folder(Path("photos/cat"))
    Path("photos/dog").mkdir()


def other_classes_in_val() -> None:
    two_classes(Path("photos/train"))
    two_classes(Path("photos/val"), ("cat", "bird"))


def two_corrupt_images() -> None:
    two_classes()
    for name in ("cat/1.png", "dog/2.png"):
        Path("photos", name).write_bytes(b"no image")


def truncated_image() -> None:
    two_classes()
    path = Path("photos/dog/2.png")
    path.write_bytes(path.read_bytes()[:-30])


def nothing() -> None:
    pass


def configs() -> None:
    Path("configs").mkdir()
    Path("configs/nope50.yaml").write_text("workers: 0\n")


def yaml_of(text: str):
    return lambda: Path("f.yaml").write_text(text)


ROWS = {
    # C6, rows 1 to 3
    "missing config": (configs, ["nope.yaml"], 2, ["nope.yaml", "did you mean configs/nope50.yaml?"]),
    "missing config without suffix": (configs, ["configs/nope5"], 2, ["configs/nope5", "configs/nope50.yaml?"]),
    "broken YAML": (yaml_of("recipe: {epochs: 1\n"), ["f.yaml"], 2, ["f.yaml:2:1", "expected ',' or '}'"]),
    "key twice": (yaml_of("workers: 0\nworkers: 1\n"), ["f.yaml"], 2, ["f.yaml:2", "workers is set twice", "line 1"]),
    "YAML with unknown key": (yaml_of("epochs: 1\n"), ["f.yaml"], 2, ["f.yaml:1", "did you mean recipe.epochs"]),
    "binary config": (two_classes, ["photos/cat/0.png"], 2, ["0.png"]),
    # rows 4 to 7
    "typo in a key": (nothing, digits("tricks.mixup_alfa=0.2"), 2, ["mixup_alfa", "mean tricks.mixup.alpha"]),
    "epochs=ten": (nothing, ["data.source=digits", "recipe.epochs=ten"], 2, ["'ten'", "must be a whole number"]),
    "epochs=0": (nothing, ["data.source=digits", "recipe.epochs=0"], 2, ["got 0", "must be >= 1"]),
    "epochs=2.5": (nothing, ["data.source=digits", "recipe.epochs=2.5"], 2, ["2.5", "must be a whole number"]),
    "epsilon=1.5": (nothing, digits("tricks.label_smoothing.epsilon=1.5"), 2, ["got 1.5", "must be < 1"]),
    "epsilon=nan": (nothing, digits("tricks.label_smoothing.epsilon=nan"), 2, ["'nan'", "must be a number"]),
    "long warmup": (
        nothing,
        ["data.source=digits", "recipe.epochs=5", "tricks.warmup.epochs=10"],
        2,
        ["got 10", "less than recipe.epochs (5)", "train longer"],
    ),
    "key without value": (nothing, ["recipe.epochs"], 2, ["recipe.epochs=VALUE"]),
    "no override": (nothing, [*digits(), "fast"], 2, ["'fast'", "key=value"]),
    # row 9
    "unknown model": (
        nothing,
        digits("model.name=resnet5d"),
        2,
        ["'resnet5d'", "did you mean resnet50", "raytricks models"],
    ),
    "model without its prefix": (
        nothing,
        ["data.source=digits", "recipe.global_batch_size=64", "model.name=alexnet"],
        2,
        ["'alexnet'", "did you mean torchvision:alexnet?"],
    ),
    # rows 11 to 14
    "missing directory": (nothing, ["photos", *tiny()], 2, ["photos", "no such config file or data directory"]),
    "missing data.path": (nothing, ["data.path=photos", *tiny()], 3, ["photos", "no such data directory", "DIR/CLASS"]),
    "data.path is a file": (lambda: empty_file("photos"), ["data.path=photos", *tiny()], 3, ["is a file", "DIR/CLASS"]),
    "empty directory": (Path("photos").mkdir, ["photos", *tiny()], 3, ["photos", "holds nothing", "DIR/CLASS"]),
    "no class folders": (flat_images, ["photos", *tiny()], 3, ["photos", "6 files (6 images)", "DIR/CLASS"]),
    "class without images": (
        class_without_images,
        ["photos", *tiny()],
        3,
        ["'dog'", "has no image", "remove"],
    ),
    "one class": (lambda: class_folder(Path("photos/cat")), ["photos", *tiny()], 3, ["'cat'", "at least 2"]),
    "other classes in val": (
        other_classes_in_val,
        ["photos", *tiny()],
        3,
        ["of which there are none to train on (there are of cat, dog)", "val has images of bird", "add some or remove"],
    ),
    "batch larger than the data": (
        two_classes,
        ["photos", *tiny("recipe.global_batch_size=256")],
        3,
        ["256", "10 training images", "use at most 10"],
    ),
    "setting twice": (two_classes, ["photos", *tiny(), "recipe.epochs=3"], 2, ["recipe.epochs is set twice"]),
    "nothing to evaluate on": (two_classes, ["photos", *tiny("data.val_fraction=0")], 3, ["data.val_fraction"]),
    "no data named": (nothing, tiny(), 3, ["data.path is not set", "data.source=digits"]),
    # row 17
    "two corrupt images": (
        two_corrupt_images,
        ["photos", *tiny()],
        3,
        ["1.png", "1 more unreadable", "remove it"],
    ),
    "truncated image": (truncated_image, ["photos", *tiny()], 3, ["2.png", "truncated"]),
    # row 18; 19 is below
    "resume of nothing": (nothing, ["--resume", "runs/x"], 2, ["runs/x is not a run directory", "name one"]),
    "resume of a folder": (two_classes, ["--resume", "photos"], 2, ["photos is not a run directory", "name one"]),
    "resume and a target": (two_classes, ["photos", "--resume", "x"], 2, ["--resume x", "leave photos out"]),
    # the command line itself
    "nothing at all": (nothing, [], 2, ["nothing to train on", "--resume RUN_DIR"]),
    "unknown option": (nothing, ["--epochs", "3"], 2, ["--epochs", "recipe.epochs=3", "raytricks train --help"]),
    "config by -c": (nothing, ["-c", "nope.yaml"], 2, ["-c", "raytricks train --help"]),
    "resume without a run": (nothing, ["--resume"], 2, ["nothing to train on", "--resume RUN_DIR"]),
    "quiet and json": (nothing, ["--quiet", "--json", *digits()], 2, ["--quiet", "--json", "leave one"]),
    "name of embedded data": (nothing, ["digits"], 2, ["did you mean data.source=digits?"]),
    "no GPU": (nothing, digits("hardware.device=cuda"), 2, ["no usable GPU", "hardware.device=cpu"]),
    "single images with batch norm": (
        nothing,
        digits("hardware.images_per_device=1"),
        2,
        ["needs 2 images", "images_per_device 1", "model.norm=group"],
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_cli_bad_input_is_one_clear_line(shell, row):
    prepare, arguments, code, parts = ROWS[row]
    if row == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is one")
    prepare()
    before = sorted(Path().rglob("*"))
    got, out, err = shell("train", *arguments)
    assert got == code, err
    assert 1 <= len(err.splitlines()) <= 3, err
    assert err.startswith("error: ")
    for part in parts:
        assert part in err
    assert "Traceback" not in err and out.count("\n") <= 12
    assert sorted(Path().rglob("*")) == before  # nothing was made


def test_cli_name_that_exists_and_finished_run(shell):
    arguments = digits("recipe.global_batch_size=512", "name=a")
    code, out, err = shell("train", *arguments)
    assert (code, err) == (0, "")
    assert "\x1b" not in out and out.count("\nepoch ") == 2 and "top-1" in out
    code, _, err = shell("train", *arguments)
    assert code == 2 and err == "error: runs/a exists (2 of 2 epochs); choose another name\n"
    code, _, err = shell("train", "--resume", "runs/a")
    assert code == 2 and err == "error: runs/a is finished (2 of 2 epochs); start a new run to train further\n"
    code, _, err = shell("train", "runs/a")
    assert code == 2 and "--resume runs/a" in err and "runs/a/config.yaml name=NEW_NAME" in err
    code, _, err = shell("train", "--resume", "runs")
    assert code == 2 and "the newest run there is runs/a" in err
    assert shell("train", "runs/a/config.yaml", "name=again", "--quiet") == (0, "", "")
    assert sorted(p.name for p in Path("runs").iterdir()) == ["a", "again"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["trian", "Did you mean 'train'"]),
        (["doctr"], ["doctr", "Did you mean 'doctor'"]),
        (["doctor", "--strickt"], ["--strickt", "raytricks doctor --help"]),
        (["config", "shwo"], ["shwo", "Did you mean 'show'"]),
        (["models", "x"], ["extra argument", "raytricks models --help"]),
        (["version", "--json"], ["--json", "raytricks version --help"]),
        (["config", "show", "recipe.epoch=1"], ["unknown key recipe.epoch", "did you mean recipe.epochs"]),
    ],
)
def test_cli_wrong_command_is_one_clear_line(shell, arguments, parts):
    code, _, err = shell(*arguments)
    assert code == 2 and err.count("\n") == 1
    for part in parts:
        assert part in err


@pytest.mark.parametrize("arguments", [[], ["config"]])
def test_cli_without_a_command_is_the_help(shell, arguments):
    code, out, err = shell(*arguments)
    assert code == 2 and "Usage" in out + err and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "-h"], ["config", "show", "--help"], ["models", "-h"], ["doctor", "-h"]]
)
def test_cli_help_ends_well(shell, arguments):
    code, out, err = shell(*arguments)
    assert (code, err) == (0, "") and "Usage" in out


def test_cli_dry_run_prints_the_recipe_and_writes_nothing(shell):
    code, out, err = shell("train", *digits(), "--dry-run")
    assert (code, err) == (0, "")
    labels = [line.split()[0] for line in out.splitlines()]
    assert labels[:10] == ["run", "data", "classes", "images", "model", "recipe", "lr", "tricks", "off", "hardware"]
    assert set(labels[10:]) == {"doctor"}  # a tiny run is not a sound one
    assert list(Path().iterdir()) == []


def test_cli_json_prints_records_only(shell):
    arguments = digits("recipe.global_batch_size=512", "name=a")
    code, out, err = shell("train", *arguments, "--json")
    assert (code, err) == (0, "")
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["step", "epoch", "step", "epoch"]


def test_cli_config_show_models_version_schema(shell):
    assert shell("version")[1] == f"{__version__}\n"
    assert "resnet50\n" in shell("models")[1]
    assert "epochs: 3" in shell("config", "show", "recipe.epochs=3", "tricks.warmup.epochs=1")[1]
    assert json.loads(shell("config", "schema")[1])["title"] == "ExperimentConfig"


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (["train", "c.yaml", "name=a", "--resume"], ["train", "c.yaml", "name=a", "--resume", "auto"]),
        (["train", "--resume", "--quiet"], ["train", "--resume", "auto", "--quiet"]),
        (["train", "--resume", "name=a"], ["train", "--resume", "auto", "name=a"]),
        (["train", "--resume", "runs/a", "workers=1"], ["train", "--resume", "runs/a", "workers=1"]),
        (["train", "c.yaml"], ["train", "c.yaml"]),
    ],
)
def test_resume_that_stands_alone_means_auto(given, parsed):
    assert with_resume_value(given) == parsed
