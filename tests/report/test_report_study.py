"""The files that a study leaves for people: the page and the tables."""

import csv
from html.parser import HTMLParser
import json
from pathlib import Path
import re
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from raytricks.report.study_drawing import Axis
from raytricks.report.study_figures import plotly_script
from raytricks.report.study_lines import trials_table, write_results_parquet, write_trials_csv
from raytricks.report.study_page import write_study_page
from raytricks.tuning.certificate import make_certificate
from raytricks.tuning.outcome import Arm, StudyResult, TrialOutcome

EVIL = "</script><script>alert('evil')</script>"
FIGURES = ("history", "parallel", "importance", "cost", "curves")


def trial(number: int, status="finished", top1=(0.5, 0.7), **changes) -> TrialOutcome:
    values = {"recipe.base_lr": 0.1 * 3**number, "data.augmentation": "shift"}
    fields = {
        "values": values,
        "elapsed_s": tuple(10.0 * (number + epoch) for epoch in range(len(top1))),
        "train_s": 5.0 + number,
        "run_dir": f"runs/s/{number:03d}",
    }
    return TrialOutcome(number=number, status=status, top1=top1, **(fields | changes))


def study(*trials: TrialOutcome, **changes) -> StudyResult:
    fields = {
        "name": "s",
        "study_dir": "runs/s",
        "data_name": "digits",
        "keys": ("recipe.base_lr", "data.augmentation"),
    }
    return StudyResult(trials=trials, **({**fields, "best": None} | changes))


def full_study() -> StudyResult:
    default, winner = trial(0), trial(1, top1=(0.6, 0.8))
    return study(
        default,
        winner,
        trial(2, "stopped", (0.3,), reason="not among the best third after epoch 1"),
        trial(3, "failed", (), reason=EVIL),
        trial(10, top1=(0.5, 0.75), values={"recipe.base_lr": 0.2, "data.augmentation": EVIL}),
        best=1,
        rung_correlation={1: 0.5},
        importance={"recipe.base_lr": (0.9, 0.1), "data.augmentation": (0.1, 0.05)},
        certificate=make_certificate(
            Arm(name="default", values=default.values, search_top1=0.7, seeds=(1, 2), test_top1=(0.6, 0.61)),
            Arm(name="winner", values=winner.values, search_top1=0.8, seeds=(1, 2), test_top1=(0.7, 0.71)),
            360,
        ),
        provenance={"command": f"raytricks tune {EVIL}", "seeds": [1, 2], "versions": {"torch": "2"}},
    )


CASES = {
    "full": (full_study(), set(FIGURES)),
    "no trial": (study(), set()),
    "all failed": (study(*(trial(i, "failed", (), reason=EVIL) for i in range(3))), set()),
    "one trial": (study(trial(0), best=0), {"history", "parallel", "cost", "curves"}),
    "none finished": (study(trial(0, "unfinished"), trial(1, "stopped")), {"history", "parallel", "curves"}),
    "default failed": (study(trial(0, "failed", ()), trial(1), best=1), {"history", "parallel", "cost", "curves"}),
    "no key": (study(trial(0, values={}), keys=(), best=0), {"history", "cost", "curves"}),
}


class PageReader(HTMLParser):
    """Collects what a browser would see: the scripts, the text outside of them, what is loaded from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts, self.text, self.elsewhere, self._tag = [], "", [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        self.elsewhere += [value for name, value in attrs if name in ("src", "href") and value != "data:,"]

    def handle_endtag(self, tag):
        self._tag = ""

    def handle_data(self, data):
        if self._tag == "script":
            self.scripts.append(data)
        elif self._tag != "style":
            self.text += data


def written(result: StudyResult, directory: Path) -> tuple[PageReader, dict]:
    path = directory / "report.html"
    write_study_page(result, path)
    assert list(directory.iterdir()) == [path]
    reader = PageReader(path.read_text(encoding="utf-8").replace(plotly_script(), "plotly"))

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return reader, json.loads(reader.scripts[1], parse_constant=refuse)


@pytest.mark.parametrize("case", CASES)
def test_page_has_its_scripts_and_figures_and_loads_nothing(case, tmp_path):
    result, expected = CASES[case]
    reader, figures = written(result, tmp_path)
    assert set(figures) == expected
    assert reader.scripts[0] == "plotly"
    assert len(reader.scripts) == 3
    assert reader.elsewhere == []
    assert not re.search(r"\b(nan|None|inf)\b", reader.text)


def test_page_shows_markup_of_the_study_as_text(tmp_path):
    reader, figures = written(full_study(), tmp_path)
    assert reader.text.count(EVIL) == 3  # the reason, a value, the command
    assert "<" not in reader.scripts[1]
    assert "<script" not in json.dumps(figures)
    assert "&lt;script&gt;" in json.dumps(figures)


def test_page_headline_sets_the_best_against_the_default(tmp_path):
    text = written(full_study(), tmp_path)[0].text
    assert (
        "Trial 1 is the best: 80.00% top-1 on the selection split, +10.00 points against the default's 70.00%." in text
    )
    assert "5 trials: 3 finished, 1 stopped, 1 failed" in text
    assert "better than the default beyond the noise of 2 seeds: +10.00 points" in text


@pytest.mark.parametrize(
    ("case", "headline"),
    [
        ("one trial", "No trial beat the default, trial 0: 70.00%"),
        (
            "default failed",
            "Trial 1 is the best: 70.00% top-1 on the selection split; the default, trial 0, is failed.",
        ),
        ("all failed", f"No trial finished, so there is no best one. The first failure: {EVIL}"),
        ("no trial", "No trial finished, so there is no best one."),
    ],
)
def test_page_headline_says_what_there_is(case, headline, tmp_path):
    assert headline in written(CASES[case][0], tmp_path)[0].text


def test_figures_mark_the_default_and_the_best(tmp_path):
    figures = written(full_study(), tmp_path)[1]
    for name in ("history", "parallel", "cost", "curves"):
        traces = {trace.get("name"): trace for trace in figures[name]["data"]}
        assert traces["trial 0, the default"]["y"][-1] < traces["trial 1, the best"]["y"][-1], name


def test_figures_show_each_trial_where_it_belongs(tmp_path):
    figures = written(full_study(), tmp_path)[1]
    history = {trace["name"]: trace for trace in figures["history"]["data"]}
    assert history["stopped"]["x"] == pytest.approx([20 / 60])
    assert history["stopped"]["y"] == pytest.approx([30])
    assert history["best so far"]["y"] == pytest.approx([70, 80, 80])
    cost = {trace["name"]: trace for trace in figures["cost"]["data"]}
    assert cost["Pareto front"]["x"] == pytest.approx([5 / 60, 6 / 60])
    assert len(cost["finished"]["x"]) == 3
    assert figures["importance"]["data"][0]["y"] == ["data.augmentation", "recipe.base_lr"]


@pytest.mark.parametrize(
    ("values", "positions", "ticks"),
    [
        ([0.01, 0.1, 1.0], [0, 0.5, 1], ["0.01", "0.1", "1"]),
        ([1, 3, 5], [0, 0.5, 1], ["1", "3", "5"]),
        ([0.5, 0.5], [0.5, 0.5], ["0.5"]),
        (["b", "a", "c"], [0.5, 0, 1], ["a", "b", "c"]),
        ([None, True], [0, 1], ["null", "true"]),
        (
            [0.0, 0.11, 0.2, 0.31, 0.4, 0.52, 1.0],
            [0, 0.11, 0.2, 0.31, 0.4, 0.52, 1],
            ["0", "0.2", "0.4", "0.6", "0.8", "1"],
        ),
    ],
)
def test_parallel_axis_places_values_and_round_ticks(values, positions, ticks):
    axis = Axis(values)
    assert axis.positions == pytest.approx(positions)
    assert [text for _, text in axis.ticks] == ticks
    assert all(-1e-9 <= place <= 1 + 1e-9 for place, _ in axis.ticks)


def test_parallel_log_axis_has_a_tick_at_each_decade():
    axis = Axis([1.3e-5, 2e-4, 1e-3, 2e-3, 3e-3, 0.04])
    assert [text for _, text in axis.ticks] == ["0.0001", "0.001", "0.01"]


def test_csv_has_a_row_a_trial_and_a_column_a_key(tmp_path):
    write_trials_csv(full_study(), tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3", "10"]
    assert list(rows[0]) == [
        "number", "status", "reason", "score", "epochs", "train_s", "run_dir", "recipe.base_lr", "data.augmentation",
    ]  # fmt: skip
    assert rows[2] | {"recipe.base_lr": ""} == {
        "number": "2", "status": "stopped", "reason": "not among the best third after epoch 1", "score": "",
        "epochs": "1", "train_s": "7", "run_dir": "runs/s/002", "recipe.base_lr": "", "data.augmentation": "shift",
    }  # fmt: skip
    assert float(rows[2]["recipe.base_lr"]) == 0.1 * 9
    assert rows[3]["reason"] == EVIL


def test_parquet_keeps_types_and_the_curve(tmp_path):
    columns = {
        "flag": [True, None],
        "batch": [64, 128],
        "lr": [1, 0.5],
        "range": [(0.1, 1.0), None],
        "mixed": [True, 2],
        "nothing": [None, None],
    }
    trials = [trial(i, values={key: column[i] for key, column in columns.items()}) for i in range(2)]
    write_results_parquet(study(*trials, keys=tuple(columns)), tmp_path / "results.parquet")
    table = pq.read_table(tmp_path / "results.parquet")
    assert [str(table.schema.field(key).type) for key in columns] == [
        "bool", "int64", "double", "string", "string", "string",
    ]  # fmt: skip
    assert table["lr"].to_pylist() == [1.0, 0.5]
    assert table["range"].to_pylist() == ["[0.1, 1.0]", None]
    assert table["mixed"].to_pylist() == ["true", "2"]
    assert str(table.schema.field("top1").type) == "list<element: double>"
    assert table["top1"].to_pylist() == [[0.5, 0.7]] * 2


def test_trials_table_is_a_frame_of_scores():
    frame = trials_table(full_study())
    assert frame.loc[frame["score"].idxmax(), "number"] == 1
    assert frame["score"].isna().tolist() == [False, False, True, True, False]


def test_tables_of_no_trial_have_their_columns(tmp_path):
    write_trials_csv(study(), tmp_path / "trials.csv")
    write_results_parquet(study(), tmp_path / "results.parquet")
    assert (tmp_path / "trials.csv").read_text().count("\n") == 1
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 0


def test_page_module_imports_without_plotly():
    code = "import sys, raytricks.report.study_page; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_page_in_a_browser_draws_its_figures_and_sorts_its_table(tmp_path):
    path = tmp_path / "report.html"
    write_study_page(full_study(), path)
    # A second click sorts downwards; what has no score stays last.
    click = "document.querySelectorAll('table.sortable th')[2].click();"
    path.write_text(path.read_text().replace("</body>", f"<script>{click}{click}</script></body>"))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    for name in FIGURES:
        drawn = re.search(rf'<div class="figure js-plotly-plot" id="{name}">.*?class="main-svg"', done.stdout)
        assert drawn is not None, name
    assert done.stdout.count('<path class="js-line"') > len(FIGURES)
    assert 'data-title="Share' not in done.stdout
    body = done.stdout.split('<table class="sortable">')[1].split("</table>")[0].split("<tbody>")[1]
    assert re.findall(r'<tr[^>]*><td class="short" data-sort="(\d+)"', body) == ["1", "10", "0", "2", "3"]
