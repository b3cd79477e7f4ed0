"""The page of a run, or of several side by side: one file that opens offline and asks nothing of any network.

Every text of a run is escaped, in the page and in its data.
"""

from collections.abc import Sequence
from html import escape
import json
from pathlib import Path
import shlex
from string import Template
from typing import Any

from raytricks.files import write_atomically
from raytricks.inference.comparison import compare_models
from raytricks.inference.evaluation import Evaluation
from raytricks.report.evaluation_lines import most_confused, number, percent
from raytricks.report.noteworthy import Noteworthy, noteworthy
from raytricks.report.run_of_page import RunOfPage
from raytricks.report.study_page import page_file

_NOT_RECIPE = ("name", "output_dir", "logging.", "checkpoint.")


def write_run_page(runs: Sequence[RunOfPage], path: Path) -> None:
    """Write the page of one run or several; about 5 MB, most of it plotly.js, at most some 8 MB."""
    from raytricks.report.study_figures import plotly_script  # plotly costs half a second to import

    figures: dict[str, Any] = {}
    chosen = [None if run.evaluation is None else noteworthy(run.evaluation) for run in runs]
    sections = [_headline(runs), _differences(runs), _curves(runs, figures)]
    for place, (run, seen) in enumerate(zip(runs, chosen, strict=True)):
        sections += _of_run(run, seen, place, figures, title=f"{run.name}: " if len(runs) > 1 else "")
    sections += [_commands(runs), _provenance(runs)]
    title = f"Run {runs[0].name}" if len(runs) == 1 else f"Runs {', '.join(run.name for run in runs)}"
    page = Template(page_file("run_page.html")).substitute(
        style=page_file("page.css"),
        script=page_file("page.js"),
        title=escape(title),
        sections="\n".join(filter(None, sections)),
        plotly=plotly_script(),
        figure_data="{" + ", ".join(f"{json.dumps(name)}: {f.to_json()}" for name, f in figures.items()).replace(
            "<", "\\u003c"
        ) + "}",
        cell_data=json.dumps(_cells(runs, chosen)).replace("<", "\\u003c"),
    )  # fmt: skip
    write_atomically(path, page.encode())


def _headline(runs: Sequence[RunOfPage]) -> str:
    rows = []
    for run in runs:
        found = run.evaluation
        last = run.epochs[-1] if run.epochs else {}
        top1 = percent(found.figures.top1) if found else f"{last['val_top1']:.2%}" if "val_top1" in last else "none yet"
        cells = [run.name, top1]
        if found is not None:
            figures = found.figures
            ece = (found.calibrated or figures).ece
            cells += [
                number(figures.cross_entropy),
                percent(figures.macro_f1),
                f"{ece.value:.4f} (by chance up to {ece.null_95:.4f})",
            ]
        else:
            cells += ["", "", ""]
        cells += [_slowest(run)]
        rows.append("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in cells) + "</tr>")
    head = "".join(
        f"<th>{name}</th>"
        for name in ("run", "top-1", "loss", "macro F1", "ECE, calibrated", "slowest part of an epoch")
    )
    pairs = "".join(f"<p>{escape(text)}</p>" for text in _pairs(runs))
    absent = "".join(f'<p class="muted">{escape(run.name)}: {escape(run.absence)}</p>' for run in runs if run.absence)
    note = '<p class="muted">[low, high]: 95%; Wilson for top-1, bootstrap over the images for the others.</p>'
    return f"<section>{_table(head, rows)}{note}{pairs}{absent}</section>"


def _table(head: str, rows: Sequence[str]) -> str:
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _pairs(runs: Sequence[RunOfPage]) -> list[str]:
    """Compare each run with the first, where they answered the same images."""
    first, told = runs[0].evaluation, []
    for run in runs[1:]:
        other = run.evaluation
        if (
            first is None
            or other is None
            or other.data != first.data
            or not (other.labels.shape == first.labels.shape and (other.labels == first.labels).all())
        ):
            told.append(f"{run.name} and {runs[0].name} were not evaluated on the same images; they cannot be paired.")
            continue
        pair = compare_models(*(of.logits.argmax(axis=1) == of.labels for of in (other, first)))
        points = pair.difference
        assert points.value is not None and points.low is not None and points.high is not None
        verdict = "they differ" if pair.p_value < 0.05 else "no difference can be told"
        told.append(
            f"{run.name} against {runs[0].name}: {100 * points.value:+.2f} points [{100 * points.low:+.2f}, "
            f"{100 * points.high:+.2f}], McNemar's exact p = {pair.p_value:.3g}: {verdict}."
        )
    return told


def _slowest(run: RunOfPage) -> str:
    sums = {"training": 0.0, "evaluation": 0.0, "waiting for data": 0.0}
    for record in run.epochs:
        waited = record.get("data_wait_s") or 0.0
        sums["training"] += record["train_s"] - waited
        sums["evaluation"] += record["val_s"]
        sums["waiting for data"] += waited
    total = sum(sums.values())
    name = max(sums, key=lambda part: sums[part])
    return f"{name}, {sums[name] / total:.0%}" if total else ""


def _differences(runs: Sequence[RunOfPage]) -> str:
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
    found = _table(head, rows) if rows else '<p class="muted">No setting does.</p>'
    return f"<section><h2>What differs</h2>{found}</section>"


def _curves(runs: Sequence[RunOfPage], figures: dict[str, Any]) -> str:
    from raytricks.report.run_figures import curves  # plotly

    drawn = curves(runs)
    figures |= {f"curve-{name}": figure for name, figure in drawn.items()}
    boxes = "".join(f'<div class="figure" id="curve-{name}"></div>' for name in drawn)
    return f'<section><h2>Epoch by epoch</h2><div class="grid">{boxes}</div></section>' if boxes else ""


def _of_run(run: RunOfPage, seen: Noteworthy | None, place: int, figures: dict[str, Any], title: str) -> list[str]:
    found = run.evaluation
    if found is None or seen is None:
        return []
    from raytricks.report.run_figures import confusion_map, recall_bars, reliability  # plotly

    figures[f"recall-{place}"] = recall_bars(found)
    figures[f"confusion-{place}"], _ = confusion_map(found)
    figures[f"reliability-{place}"] = reliability(found)
    title = escape(title)
    return [
        f"<section><h2>{title}Recall by class, lowest first</h2>"
        f'<div class="figure" id="recall-{place}"></div></section>',
        f'<section><h2>{title}Confusion</h2><p class="muted">Parts of each true class. Click on a cell, or on a pair '
        f'below, to see its images.</p><div class="figure" id="confusion-{place}"></div>{_worst(found, place)}'
        f'<div class="thumbnails" id="cell-{place}"></div></section>',
        f'<section><h2>{title}Does the confidence mean what it says?</h2>'
        f'<div class="figure" id="reliability-{place}"></div></section>',
        _pictures(f"{title}The most confident mistakes", seen.mistakes, run, seen),
        _pictures(f"{title}The least sure right answers", seen.unsure, run, seen),
        _classes(found, title),
    ]  # fmt: skip


def _worst(found: Evaluation, place: int) -> str:
    names = found.figures.class_names
    pairs = most_confused(found.figures.confusion, 12)
    buttons = "".join(
        f'<button type="button" class="pair" data-run="{place}" data-cell="{true},{taken}">'
        f"{count:,} × {escape(names[true])} taken for {escape(names[taken])}</button>"
        for true, taken, count in pairs
    )
    return (
        f'<p class="pairs">{buttons}</p>' if buttons else '<p class="muted">No image was taken for another class.</p>'
    )


def _pictures(title: str, chosen: Sequence[int], run: RunOfPage, seen: Noteworthy) -> str:
    found = run.evaluation
    assert found is not None
    if not chosen:
        return f'<section><h2>{title}</h2><p class="muted">None.</p></section>'
    boxes = "".join(_picture(index, run, found, seen) for index in chosen)
    return f'<section><h2>{title}</h2><div class="thumbnails">{boxes}</div></section>'


def _picture(index: int, run: RunOfPage, found: Evaluation, seen: Noteworthy) -> str:
    told = _told(index, found, seen)
    source = run.thumbnails.get(index)
    image = f'<img alt="" src="{source}">' if source else '<span class="none"></span>'
    return f'<figure title="{escape(told["name"])}">{image}<figcaption>{escape(told["text"])}</figcaption></figure>'


def _told(index: int, found: Evaluation, seen: Noteworthy) -> dict[str, str]:
    names = found.figures.class_names
    true, taken = names[int(found.labels[index])], names[int(found.logits[index].argmax())]
    answer = f"{taken} {seen.confidence[index]:.0%}"
    name = found.image_names[index] if index < len(found.image_names) else f"image {index}"
    return {"name": name, "text": answer if true == taken else f"{true}, taken for {answer}"}


def _classes(found: Evaluation, title: str) -> str:
    rows = []
    for row in found.figures.classes:
        cells = [f'<td data-sort="{escape(row.name)}">{escape(row.name)}</td>']
        cells += [f'<td class="number" data-sort="{count}">{count:,}</td>' for count in (row.support, row.predicted)]
        for rate in (row.precision, row.recall, row.f1):
            order = "" if rate.value is None else repr(rate.value)
            cells.append(f'<td class="number" data-sort="{order}">{escape(percent(rate))}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = ("class", "images", "answers", "precision", "recall", "F1")
    head = "".join(
        f'<th class="{"number" if i else ""}"><button type="button">{h}</button></th>' for i, h in enumerate(heads)
    )
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<section><h2>{title}All classes</h2><div class="wide tall">{table}</div></section>'


def _cells(runs: Sequence[RunOfPage], chosen: Sequence[Noteworthy | None]) -> list[dict[str, Any]]:
    """Return for each run the images of its most confused cells, for the page's script."""
    told = []
    for run, seen in zip(runs, chosen, strict=True):
        found = run.evaluation
        if found is None or seen is None:
            told.append({})
            continue
        cells = {
            f"{true},{taken}": [_told(i, found, seen) | {"src": run.thumbnails.get(i, "")} for i in images]
            for (true, taken), images in seen.of_cells.items()
        }
        from raytricks.report.run_figures import confusion_map  # plotly

        told.append({"cells": cells, "shown": confusion_map(found)[1]})
    return told


def _commands(runs: Sequence[RunOfPage]) -> str:
    lines = []
    for run in [run for run in runs if run.records]:
        place = shlex.quote(str(run.run_dir))
        lines += [
            f"raytricks train {shlex.quote(str(run.run_dir / 'config.yaml'))} name=again",
            f"raytricks evaluate {place}",
            f"raytricks predict {place} IMAGES -o answers.csv",
            f"raytricks export {place}",
        ]
    if not lines:
        return ""
    return f"<section><h2>Again, and on</h2><pre>{escape(chr(10).join(lines))}</pre></section>"


def _provenance(runs: Sequence[RunOfPage]) -> str:
    rows = []
    for run in runs:
        told = {"directory": str(run.run_dir), "data": run.evaluation.data if run.evaluation else "", **run.facts}
        rows += [f'<tr><td class="muted">{escape(name)}</td><td class="long">{escape(_text(value))}</td></tr>'
                 for name, value in told.items()]  # fmt: skip
    recipe = "".join(
        f'<tr><td class="muted">{escape(key)}</td><td class="long">{escape(_text(value))}</td></tr>'
        for key, value in sorted(runs[0].settings.items())
    )
    tables = f"<details><summary>Facts</summary><table><tbody>{''.join(rows)}</tbody></table></details>"
    tables += f"<details><summary>All settings{' of the first' if len(runs) > 1 else ''}</summary><table><tbody>{recipe}</tbody></table></details>"  # noqa: E501
    return f"<section><h2>How it was made</h2>{tables}</section>"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
