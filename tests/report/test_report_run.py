"""The page of a run opens offline, escapes what it is told, and holds the run's own figures; so does the card."""

import json
import re
import shutil

import numpy as np
from PIL import Image
import pytest
import yaml

import raytricks
from raytricks.errors import ConfigError
from raytricks.inference.evaluation import evaluation_of
from raytricks.report.evaluation_lines import percent
from raytricks.report.noteworthy import MOST_THUMBNAILS, noteworthy
from raytricks.report.run_of_page import RunOfPage
from raytricks.report.run_page import write_run_page
from raytricks.use.reporting import report, run_for_page

EVIL = "<script>alert(1)<b>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on a folder whose class and file names are markup."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for number, name in enumerate((EVIL.replace("/", ""), "plain & simple", "third")):
        (folder / "photos" / name).mkdir(parents=True)
        for image in range(20):
            pixels = rng.integers(0, 120, (12, 12, 3), dtype=np.uint8)
            pixels[:, :, number] += rng.integers(0, 90, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"<img src=x>{image}.png")
    settings = {
        "data.path": str(folder / "photos"),
        "data.val_fraction": 0.5,
        "model.name": "resnet8",
        "model.width": 8,
        "recipe.epochs": 2,
        "recipe.global_batch_size": 10,
        "tricks.warmup.epochs": 1.0,
        "logging.tensorboard": False,
        "output_dir": str(folder / "runs"),
    }
    made = [settings | {"name": name, "recipe.base_lr": lr} for name, lr in (("a", 0.1), ("b", 0.5))]
    return [raytricks.train(None, own).run_dir for own in made]


def test_page_of_a_run_is_offline_escaped_and_small(runs):
    path = report([runs[0]])
    page = path.read_text()
    assert path == runs[0] / "report.html" and len(page) < 8 * 2**20
    assert "default-src 'none'" in page
    body = page[: page.index("<script>")] + page[page.rindex('id="figure-data">') :]
    assert EVIL not in body and "<img src=x>" not in body
    assert "&lt;script&gt;alert(1)&lt;b&gt;" in body
    for data in re.findall(r'<script type="application/json" id="[a-z-]+">(.*?)</script>', page, re.S):
        json.loads(data)
    assert not re.search(r'(src|href)="(?!data:)', body)
    found = raytricks.evaluate(runs[0])
    assert percent(found.figures.top1) in page and percent(found.figures.macro_f1) in page
    assert "data:image/jpeg;base64," in page


def test_page_of_two_runs_says_what_differs_and_pairs_them(runs, tmp_path):
    page = report(runs, tmp_path / "both.html").read_text()
    assert re.search(r"recipe\.base_lr</td><td>0\.1</td><td>0\.5</td>", page)
    assert "b against a:" in page and "McNemar" in page
    assert "model.width</td><td>" not in page[: page.index("How it was made")]


@pytest.mark.parametrize("num_classes", [3, 10, 150])
def test_page_of_many_classes_stays_readable_and_small(tmp_path, num_classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 3000)
    logits = rng.normal(0, 1, (3000, num_classes)).astype(np.float32)
    logits[np.arange(3000), labels] += 2
    names = tuple(f"class number {number}" for number in range(num_classes))
    found = evaluation_of(
        logits, labels, names, temperature=1.2, cross_entropy=1.0, model="m", data="d", image_names=("x",) * 3000
    )
    chosen = noteworthy(found)
    assert len(chosen.images) <= MOST_THUMBNAILS
    predicted = logits.argmax(axis=1)
    assert all(predicted[i] != labels[i] for i in chosen.mistakes)
    assert all(predicted[i] == labels[i] for i in chosen.unsure)
    confidence = chosen.confidence[list(chosen.mistakes)]
    assert (np.diff(confidence) <= 0).all()
    run = RunOfPage(tmp_path, {}, {}, [], found)
    write_run_page([run], tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 8 * 2**20


def test_page_of_a_run_without_answers_or_images_says_so(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    (copy / "answers.safetensors").unlink()
    assert "it keeps no answers" in run_for_page(copy).absence
    assert "it keeps no answers" in report([copy]).read_text()
    with pytest.raises(ConfigError, match="is no directory of a run"):
        report([tmp_path])


def test_card_is_filled_from_the_run(runs):
    report([runs[0]])
    card = (runs[0] / "MODEL_CARD.md").read_text()
    _, front, text = card.split("---\n", 2)
    told = yaml.safe_load(front)
    found = raytricks.evaluate(runs[0])
    result = told["model-index"][0]["results"][0]
    assert told["pipeline_tag"] == "image-classification" and "license" not in told
    assert result["metrics"][0] == {"type": "accuracy", "value": round(found.figures.top1.value, 6)}
    assert percent(found.figures.top1) in text and "recipe.base_lr: 0.1" in text
