"""Several runs on a page are told apart, paired only on the same images, and share its budget of pictures."""

from dataclasses import replace
from pathlib import Path
import re

import numpy as np
import pytest

from raytricks.inference.comparison import compare_models
from raytricks.inference.evaluation import Evaluation, compared, evaluation_of
from raytricks.report.evaluation_lines import percent
from raytricks.report.noteworthy import MOST_THUMBNAILS, noteworthy
from raytricks.report.run_comparison import class_differences, pairs, points, same_images
from raytricks.report.run_of_page import RunOfPage, told_apart
from raytricks.report.run_page import write_run_page

IN_CLASS_ORDER = np.repeat([0, 1, 2], 20)
MIXED = np.random.default_rng(3).permutation(IN_CLASS_ORDER)


def answered(labels: np.ndarray, num_classes: int = 3, *, seed: int = 0, names: tuple[str, ...] = ()) -> Evaluation:
    logits = np.random.default_rng(seed).normal(0, 1, (len(labels), num_classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 1.5
    told = {"model": "m", "data": "d: val", "image_names": names}
    class_names = tuple(f"class {number}" for number in range(num_classes))
    return evaluation_of(logits, labels, class_names, temperature=1.2, cross_entropy=1.0, **told)


def run_at(place: str, evaluation: Evaluation | None = None, **settings) -> RunOfPage:
    return RunOfPage(Path(place), settings, {}, [], evaluation)


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["/r/a", "/r/b"], ["a", "b"]),
        (["/x/first", "/y/first"], ["x/first", "y/first"]),
        (["/x/z/first", "/y/z/first", "/y/z/other"], ["x/z/first", "y/z/first", "other"]),
        (["/x/first", "/x/first"], ["/x/first", "/x/first (2)"]),
    ],
)
def test_runs_of_a_page_have_names_that_differ(places, names):
    found = [run.name.replace("//", "/") for run in told_apart([run_at(place) for place in places])]
    assert found == names and len(set(found)) == len(found)


def test_run_here_is_named_by_its_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_at(".").name == tmp_path.name


@pytest.mark.parametrize(
    ("labels", "ours", "theirs", "seeds", "same"),
    [
        (MIXED, (), (), (0, 1), True),  # an order that no other images would have
        (IN_CLASS_ORDER, (), (), (0, 0), True),
        (IN_CLASS_ORDER, (), (), (0, 1), False),  # any seed's held-out images of sorted folders have these labels
        (IN_CLASS_ORDER, "a{}.png", "a{}.png", (0, 1), True),
        (IN_CLASS_ORDER, "a{}.png", "b{}.png", (0, 0), False),
        (IN_CLASS_ORDER, "val: image {}", "val: image {}", (0, 1), False),  # a place among them, no name
    ],
)
def test_runs_are_paired_only_on_the_same_images(labels, ours, theirs, seeds, same):
    made = []
    for pattern, seed in zip((ours, theirs), seeds, strict=True):
        names = tuple(pattern.format(number) for number in range(len(labels))) if pattern else ()
        made.append(run_at(f"/r/{len(made)}", answered(labels, seed=seed, names=names), seed=seed))
    assert same_images(*made) is same
    assert ("cannot be paired" in pairs(made)[0]) is not same


def test_pairs_are_each_with_each_and_say_how_many():
    runs = [run_at(f"/r/{number}", answered(MIXED, seed=number)) for number in range(3)]
    told = pairs(runs)
    assert [line.split(":")[0] for line in told[:3]] == ["1 against 0", "2 against 0", "2 against 1"]
    assert told[3].startswith("3 pairs were tested")
    right = [run.evaluation.logits.argmax(axis=1) == MIXED for run in runs if run.evaluation]
    assert points(compare_models(right[2], right[1]).difference) in told[2]
    assert len(pairs([*runs, run_at("/r/3", runs[0].evaluation), run_at("/r/4", runs[1].evaluation)])) == 4 + 1


def test_class_differences_are_those_of_the_class_largest_first():
    runs = [run_at(f"/r/{number}", answered(MIXED, seed=number)) for number in range(2)]
    first, second = (run.evaluation for run in runs)
    assert first is not None and second is not None
    rows = re.findall(r"<tr><td[^>]*>(class \d)</td>.*?</tr>", class_differences(runs))
    gaps = {
        row.name: abs((other.recall.value or 0) - (row.recall.value or 0))
        for row, other in zip(first.figures.classes, second.figures.classes, strict=True)
    }
    assert [gaps[name] for name in rows] == sorted(gaps.values(), reverse=True)
    members = MIXED == 1
    right = [(of.logits.argmax(axis=1) == MIXED)[members] for of in (second, first)]
    assert points(compare_models(*right).difference) in class_differences(runs)
    assert class_differences(runs[:1]) == ""


@pytest.mark.parametrize("num_runs", [1, 2, 6, 40])
def test_runs_share_the_pictures_of_a_page(tmp_path, num_runs):
    labels = np.random.default_rng(0).integers(0, 100, 6000)
    found = answered(labels, 100)
    picture = "data:image/jpeg;base64," + "A" * 4000
    run = replace(run_at(str(tmp_path), found), thumbnails=dict.fromkeys(noteworthy(found).images, picture))
    write_run_page([run] * num_runs, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") <= MOST_THUMBNAILS
    assert num_runs > 6 or len(page) < 8 * 2**20


def test_page_of_an_evaluation_has_its_notes_and_its_comparison(tmp_path):
    found = compared(answered(MIXED), replace(answered(MIXED, seed=1), model="<other>"))
    found = replace(found, notes=("7 images are left out, of classes <b>",))
    write_run_page([run_at("/r/model", found)], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "7 images are left out, of classes &lt;b&gt;" in page and "model against &lt;other&gt;:" in page
    assert f"Top-1 {percent(found.figures.top1)} on 60 images of d: val." in page
