"""What tells the runs of a page apart: their settings, McNemar's test of each pair, and the recall of each class."""

from collections.abc import Sequence
from html import escape
from itertools import combinations
import json
import re

import numpy as np

from raytricks.inference.comparison import Comparison, compare_models
from raytricks.inference.evaluation import Evaluation
from raytricks.inference.intervals import Estimate
from raytricks.report.evaluation_lines import percent
from raytricks.report.run_of_page import RunOfPage
from raytricks.report.tables import cell, number_cell, section, sortable, table

_NOT_RECIPE = ("name", "output_dir", "logging.", "checkpoint.")
_MOST_PAIRED, _MOST_CLASSES = 4, 100


def same_images(first: RunOfPage, second: RunOfPage) -> bool:
    """Whether two runs answered the same images in the same order.

    Labels in class order are the same for any seed's held-out images, so there the names must tell, or the data's
    settings and the seed.
    """
    ours, theirs = first.evaluation, second.evaluation
    if ours is None or theirs is None or ours.figures.class_names != theirs.figures.class_names:
        return False
    if not np.array_equal(ours.labels, theirs.labels):
        return False
    if ours.image_names and theirs.image_names and ours.image_names != theirs.image_names:
        return False
    are_files = bool(ours.image_names and theirs.image_names) and not re.search(r": image \d+$", ours.image_names[0])
    if are_files or (np.diff(ours.labels) < 0).any():
        return True
    keys = [key for key in first.settings.keys() | second.settings.keys() if key == "seed" or key.startswith("data.")]
    return all(first.settings.get(key) == second.settings.get(key) for key in keys)


def differences(runs: Sequence[RunOfPage]) -> str:
    """Return the settings that are not the same in all runs, as a section; nothing for one run."""
    if len(runs) < 2:
        return ""
    keys = sorted({key for run in runs for key in run.settings if not key.startswith(_NOT_RECIPE)})
    rows = []
    for key in keys:
        values = [json.dumps(run.settings.get(key), default=str) for run in runs]
        if len(set(values)) > 1:
            cells = "".join(f"<td>{escape(value)}</td>" for value in values)
            rows.append(f"<tr><td>{escape(key)}</td>{cells}</tr>")
    head = "<th>setting</th>" + "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    return section("What differs", table(head, rows) if rows else '<p class="muted">No setting does.</p>')


def pairs(runs: Sequence[RunOfPage]) -> list[str]:
    """Compare each run with each, from five on only with the first; and evaluations with what they were set against."""
    told = []
    for run in runs:
        if run.evaluation is not None and run.evaluation.comparison is not None:
            told.append(_pair(run.name, str(run.evaluation.compared_with), run.evaluation.comparison))
    chosen = list(combinations(range(len(runs)), 2))
    if len(runs) > _MOST_PAIRED:
        chosen = [(0, other) for other in range(1, len(runs))]
    for a, b in chosen:
        first, other = runs[a], runs[b]
        if not same_images(first, other):
            told.append(f"{other.name} and {first.name} were not evaluated on the same images; they cannot be paired.")
            continue
        assert first.evaluation is not None and other.evaluation is not None
        told.append(_pair(other.name, first.name, compare_models(_right(other.evaluation), _right(first.evaluation))))
    if len(chosen) > 1:
        told.append(f"{len(chosen)} pairs were tested: of as many without a difference, one in twenty looks like one.")
    return told


def _pair(name: str, other: str, pair: Comparison) -> str:
    verdict = "they differ" if pair.p_value < 0.05 else "no difference can be told"
    return f"{name} against {other}: {points(pair.difference)}, McNemar's exact p = {pair.p_value:.3g}: {verdict}."


def points(difference: Estimate) -> str:
    """Return +1.20 points [-0.31, +2.71]."""
    assert difference.value is not None and difference.low is not None and difference.high is not None
    return f"{100 * difference.value:+.2f} points [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"


def _right(found: Evaluation) -> np.ndarray:
    return found.logits.argmax(axis=1) == found.labels


def class_differences(runs: Sequence[RunOfPage]) -> str:
    """Return each class's recall by run, those that differ most first, as a section; nothing for one run."""
    scored = [run for run in runs if run.evaluation is not None]
    first = scored[0] if scored else None
    if first is None or first.evaluation is None or len(scored) < 2:
        return ""
    names = first.evaluation.figures.class_names
    alike = [run for run in scored if run.evaluation and run.evaluation.figures.class_names == names]
    if len(alike) < 2:
        return section("Class by class", '<p class="muted">The runs tell other classes apart.</p>')
    rows = sorted((_class_row(number, name, alike) for number, name in enumerate(names)), key=lambda row: -row[0])
    note = "Recall of each class; what differs most comes first. Click a heading to sort."
    if len(rows) > _MOST_CLASSES:
        note += f" The {_MOST_CLASSES} classes that differ most of {len(rows):,}."
    heads = ["class", "images", *(run.name for run in alike)]
    heads += [f"{run.name} − {first.name}" for run in alike[1:]]
    body = sortable(heads, [row for _, row in rows[:_MOST_CLASSES]])
    return section("Class by class", f'<p class="muted">{escape(note)}</p>{body}')


def _class_row(number: int, name: str, runs: Sequence[RunOfPage]) -> tuple[float, str]:
    """Return how far the runs lie apart on a class, and its row."""
    found = [run.evaluation for run in runs if run.evaluation is not None]
    recalls = [of.figures.classes[number].recall for of in found]
    cells = [cell(name, name), number_cell(found[0].figures.classes[number].support)]
    cells += [cell(recall.value, percent(recall), "number") for recall in recalls]
    largest = 0.0
    for run, of, recall in zip(runs[1:], found[1:], recalls[1:], strict=True):
        if recall.value is None or recalls[0].value is None:
            cells.append(cell(None, "", "number"))
            continue
        gap, text = recall.value - recalls[0].value, ""
        if same_images(runs[0], run):
            members = of.labels == number
            text = points(compare_models(_right(of)[members], _right(found[0])[members]).difference)
        cells.append(cell(gap, text or f"{100 * gap:+.2f} points", "number"))
        largest = max(largest, abs(gap))
    return largest, f"<tr>{''.join(cells)}</tr>"
