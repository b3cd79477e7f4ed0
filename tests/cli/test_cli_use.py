"""`raytricks evaluate` and `predict` from the command line: what they print, and the exit codes."""

import csv
import json

import pytest


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    import raytricks

    folder = tmp_path_factory.mktemp("cli_use")
    settings = {
        "data.source": "digits",
        "data.horizontal_flip": False,
        "model.name": "resnet8",
        "model.width": 8,
        "recipe.epochs": 3,
        "tricks.warmup.epochs": 1.0,
        "logging.tensorboard": False,
        "output_dir": str(folder),
        "name": "run",
    }
    return raytricks.train(None, settings).run_dir


def test_evaluate_prints_figures_and_writes_a_table(trained, tmp_path, shell):
    table = tmp_path / "classes.csv"
    code, out, err = shell("evaluate", str(trained), "--csv", str(table))
    assert code == 0, err
    assert "top-1" in out and "ECE" in out and "359 images of 10 classes" in out
    with table.open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == list("0123456789")
    page = tmp_path / "page.html"
    code, _, err = shell("evaluate", str(trained), "digits", "--split", "all", "--page", str(page))
    assert code == 0, err
    assert "data:image/jpeg" in page.read_text()
    told = json.loads(shell("evaluate", str(trained), "digits", "--split", "all", "--json")[1])
    assert told["num_images"] == 1797 and len(told["classes"]) == 10


@pytest.mark.parametrize(
    ("words", "code", "fault"),
    [
        (("evaluate", "nowhere"), 1, "no such model file"),
        (("evaluate", "RUN", "nowhere"), 3, "nowhere"),
        (("evaluate", "RUN", "--weights", "first"), 2, "weights must be last, best, average"),
        (("evaluate", "RUN", "--csv", "no/table.csv"), 2, "is no directory"),
        (("evaluate", "RUN", "--split", "test"), 3, "has no test images; --split may be train, val or all"),
        (("predict", "RUN", "nowhere.jpg"), 3, "nowhere.jpg: no such file, folder or pattern"),
        (("predict", "RUN", ".", "-o", "out.txt"), 2, "must end with .parquet, .csv, .jsonl"),
        (("predict", "RUN", ".", "-o", "out.csv", "--precision", "99"), 2, "between 0 and 1, such as 0.99"),
        (
            ("predict", "RUN", ".", "--precision", "0.9", "--workers", "2"),
            2,
            "--precision, --workers: only with",
        ),
        (("predict", "RUN", ".", "--threshold", "7"), 2, "--threshold must be from 0 to 1, got 7"),
        (("predict", "RUN", ".", "-o", "out.csv", "--precision-data", "digits"), 2, "add --precision, such as 0.99"),
    ],
)
def test_use_refuses_in_one_line(trained, shell, tmp_path, words, code, fault):
    (tmp_path / "a.png").write_bytes(b"")
    ended, _, err = shell(*(str(trained) if word == "RUN" else word for word in words))
    assert (ended, len(err.strip().splitlines())) == (code, 1), err
    assert fault in err


def test_predict_prints_a_line_an_image(trained, shell, tmp_path):
    from PIL import Image

    Image.new("L", (8, 8), 200).save(tmp_path / "light.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    first, second = shell("predict", str(trained), str(tmp_path), "--top", "2")[1].strip().splitlines()
    assert first.startswith("error     ") and "bad.png" in first
    assert second.startswith(str(tmp_path / "light.png")) and second.count("%") == 2
