"""The page of a run works in a browser: it draws, and a click on a cell shows the images behind it."""

from dataclasses import replace
from pathlib import Path
import re
import shutil
import subprocess

import numpy as np
import pytest

from raytricks.inference.evaluation import Evaluation, evaluation_of
from raytricks.report.noteworthy import noteworthy
from raytricks.report.run_of_page import RunOfPage
from raytricks.report.run_page import write_run_page

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
EVIL = "<img src=x onerror=alert(1)>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium"),
]


def evaluated(num_classes: int) -> Evaluation:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 40 * num_classes)
    logits = rng.normal(0, 1, (len(labels), num_classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 1.5
    names = (EVIL, *(f"class {number}" for number in range(1, num_classes)))
    images = tuple(f"{EVIL}{number}.png" for number in range(len(labels)))
    told = {"model": "m", "data": "d: val", "image_names": images}
    return evaluation_of(logits, labels, names, temperature=1.2, cross_entropy=1.0, **told)


def dom_after(page: Path, script: str) -> str:
    """Return the page's elements after a script ran in it; no error may have been logged."""
    page.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'own'}"]
    command += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=8000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


def click(x: int, y: int) -> str:
    """Return a script that clicks on a cell as plotly tells of it."""
    return f'document.getElementById("confusion-0").emit("plotly_click", {{points: [{{x: {x}, y: {y}}}]}});'


@pytest.mark.parametrize("num_classes", [3, 40])
def test_click_on_a_cell_shows_its_images(tmp_path, num_classes):
    found = evaluated(num_classes)
    seen = noteworthy(found)
    run = RunOfPage(tmp_path, {}, {}, [], found)
    write_run_page([replace(run, thumbnails=dict.fromkeys(seen.images, PIXEL))], tmp_path / "page.html")
    true, taken = next(iter(seen.of_cells))
    dom = dom_after(tmp_path / "page.html", click(taken, true))
    shown = dom.split('id="cell-0"')[1].split("</section>")[0]
    pictured = len(set(seen.of_cells[true, taken]) & set(seen.images))
    assert len(re.findall(rf'<img src="{PIXEL}"', shown)) >= pictured > 0
    thumbnails = dom.split("The most confident mistakes")[1].split("</section>")[0]
    assert thumbnails.count(f'<img src="{PIXEL}"') == len(seen.mistakes)
    assert f'aria-pressed="true">{found.figures.confusion[true, taken]}' in dom
    assert "<img src=x" not in re.sub(r'"[^"]*"', '""', dom.split("<main>")[1].split("</main>")[0])
    for name in ("recall-0", "confusion-0", "reliability-0"):
        assert re.search(rf'<div class="figure js-plotly-plot" id="{name}">.*?class="main-svg"', dom), name


def test_worst_first_reorders_what_a_click_means(tmp_path):
    found = evaluated(3)
    seen = noteworthy(found)
    write_run_page([RunOfPage(tmp_path, {}, {}, [], found)], tmp_path / "page.html")
    script = 'document.querySelector("[name=worst]").click(); document.querySelector("[name=share]").click();'
    script += click(1, 0)
    counts = found.figures.confusion
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    true, taken = np.argsort(-wrong, kind="stable")[:2]
    dom = dom_after(tmp_path / "page.html", script)
    pressed = re.search(r'data-cell="([0-9,]+)"[^>]*aria-pressed="true"', dom)
    assert pressed is not None and pressed.group(1) == f"{true},{taken}"
    shown = dom.split('id="cell-0"')[1].split("</section>")[0]
    assert found.image_names[seen.of_cells[true, taken][0]].replace("<", "&lt;").replace(">", "&gt;") in shown
