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
from raytricks.inference.evaluation import Evaluation
from raytricks.inference.figures import Figures
from raytricks.report.evaluation_lines import number, percent
from raytricks.report.noteworthy import Noteworthy, noteworthy
from raytricks.report.run_comparison import class_differences, differences, pairs
from raytricks.report.run_of_page import RunOfPage, told_apart
from raytricks.report.run_pictures import confusion_section, picture_section, pictures_data
from raytricks.report.study_page import page_file
from raytricks.report.tables import cell, number_cell, section, sortable, table


def write_run_page(runs: Sequence[RunOfPage], path: Path) -> None:
    """Write the page of one run or several; about 5 MB, most of it plotly.js, at most some 8 MB."""
    from raytricks.report.study_figures import plotly_script  # plotly costs half a second to import

    runs = told_apart(runs)
    figures: dict[str, Any] = {}
    chosen = [None if run.evaluation is None else noteworthy(run.evaluation, len(runs)) for run in runs]
    sections = [_headline(runs), differences(runs), _curves(runs, figures), class_differences(runs)]
    for place, (run, seen) in enumerate(zip(runs, chosen, strict=True)):
        if run.evaluation is not None and seen is not None:
            prefix = f"{run.name}: " if len(runs) > 1 else ""
            sections += _of_run(run.evaluation, seen, place, figures, prefix)
    sections += [_commands(runs), _provenance(runs)]
    shown = [pictures_data(run, seen) if seen is not None else None for run, seen in zip(runs, chosen, strict=True)]
    drawn = ", ".join(f"{json.dumps(name)}: {figure.to_json()}" for name, figure in figures.items())
    title = f"Run {runs[0].name}" if len(runs) == 1 else f"Runs {', '.join(run.name for run in runs)}"
    page = Template(page_file("run_page.html")).substitute(
        style=page_file("page.css"),
        script=page_file("page.js"),
        run_script=page_file("run_page.js"),
        title=escape(title),
        sections="\n".join(filter(None, sections)),
        plotly=plotly_script(),
        figure_data=f"{{{drawn}}}".replace("<", "\\u003c"),
        run_data=json.dumps(shown, separators=(",", ":")).replace("<", "\\u003c"),
    )
    write_atomically(path, page.encode())


def _headline(runs: Sequence[RunOfPage]) -> str:
    heads = ["run", "top-1", "loss", "macro F1", "ECE, calibrated", "slowest part of an epoch"]
    cells = [_figures_of(run) for run in runs]
    kept = [place for place in range(len(heads)) if any(row[place] for row in cells)]
    rows = [
        "<tr>" + "".join(f'<td class="short">{escape(row[place])}</td>' for place in kept) + "</tr>" for row in cells
    ]
    sentence = ""
    if len(runs) == 1 and runs[0].evaluation is not None:
        found = runs[0].evaluation
        text = f"Top-1 {percent(found.figures.top1)} on {found.figures.num_images:,} images of {found.data}."
        sentence = f'<p class="headline">{escape(text)}</p>'
    note = "[low, high]: 95%; Wilson for top-1, bootstrap over the images for the others."
    told = [("", text) for text in pairs(runs)]
    told += [("muted", text) for text in (note, *_circumstances(runs), *(n for run in runs for n in _notes(run)))]
    lines = "".join(f'<p class="{kind}">{escape(text)}</p>' for kind, text in told)
    return f"<section>{sentence}{table(''.join(f'<th>{heads[place]}</th>' for place in kept), rows)}{lines}</section>"


def _circumstances(runs: Sequence[RunOfPage]) -> list[str]:
    """Return on what and when, said once where it is the same for all."""
    data = dict.fromkeys(run.evaluation.data for run in runs if run.evaluation is not None)
    told = []
    if len(runs) > 1 and len(data) == 1:
        told.append(f"Evaluated on {next(iter(data))}.")
    elif len(data) > 1:
        told += [f"{run.name}: evaluated on {run.evaluation.data}." for run in runs if run.evaluation is not None]
    started = [f"{run.name} {run.started_at}" if len(runs) > 1 else run.started_at for run in runs if run.started_at]
    return told + ([f"Started {', '.join(started)} UTC."] if started else [])


def _notes(run: RunOfPage) -> list[str]:
    found = () if run.evaluation is None else run.evaluation.notes
    return [f"{run.name}: {note}" for note in (run.absence, *found) if note]


def _figures_of(run: RunOfPage) -> list[str]:
    found, last = run.evaluation, run.epochs[-1] if run.epochs else {}
    if found is None:
        top1 = f"{last['val_top1']:.2%}" if "val_top1" in last else "none yet"
        return [run.name, top1, "", "", "", _slowest(run)]
    figures, ece = found.figures, (found.calibrated or found.figures).ece
    sure = f"{ece.value:.4f} (by chance up to {ece.null_95:.4f})"
    loss, f1 = number(figures.cross_entropy), percent(figures.macro_f1)
    return [run.name, percent(figures.top1), loss, f1, sure, _slowest(run)]


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


def _curves(runs: Sequence[RunOfPage], figures: dict[str, Any]) -> str:
    from raytricks.report.run_figures import curves  # plotly

    drawn = curves(runs)
    figures |= {f"curve-{name}": figure for name, figure in drawn.items()}
    boxes = "".join(f'<div class="figure" id="curve-{name}"></div>' for name in drawn)
    return section("Epoch by epoch", f'<div class="grid">{boxes}</div>') if boxes else ""


def _of_run(found: Evaluation, seen: Noteworthy, place: int, figures: dict[str, Any], prefix: str) -> list[str]:
    from raytricks.report.run_figures import recall_bars, reliability  # plotly

    figures[f"recall-{place}"] = recall_bars(found)
    figures[f"reliability-{place}"] = reliability(found)
    orders = (
        ("total ascending", "lowest first"),
        ("total descending", "highest first"),
        ("category ascending", "by name"),
    )
    switches = "".join(
        f'<label><input type="radio" name="recall-order-{place}" data-recall="{place}" value="{order}"'
        f"{' checked' if order == 'total ascending' else ''}> {text}</label>"
        for order, text in orders
    )
    told = f'<p class="muted">{escape(_told_of(found.figures, "before calibration"))}</p>'
    if found.calibrated is not None:
        told += f'<p class="muted">{escape(_told_of(found.calibrated, "after"))}</p>'
    return [
        section(
            f"{prefix}Recall by class",
            f'<p class="switches">{switches}</p><div class="figure" id="recall-{place}"></div>',
        ),
        confusion_section(found, place, prefix),
        section(
            f"{prefix}Does the confidence mean what it says?",
            f'{told}<div class="figure" id="reliability-{place}"></div>',
        ),
        picture_section(f"{prefix}The most confident mistakes", seen.mistakes, place),
        picture_section(f"{prefix}The least sure right answers", seen.unsure, place),
        section(f"{prefix}All classes", _classes(found)),
    ]


def _told_of(figures: Figures, when: str) -> str:
    ece = figures.ece
    return (
        f"ECE {when}: {ece.value:.4f}; a perfectly calibrated model would show {ece.null_mean:.4f} on average, "
        f"and less than {ece.null_95:.4f} in 95%, on as many images (temperature {figures.temperature:.3f})."
    )


def _classes(found: Evaluation) -> str:
    rows = []
    for row in found.figures.classes:
        cells = [cell(row.name, row.name), number_cell(row.support), number_cell(row.predicted)]
        cells += [cell(rate.value, percent(rate), "number") for rate in (row.precision, row.recall, row.f1)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return sortable(("class", "images", "answers", "precision", "recall", "F1"), rows)


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
    return section("Again, and on", f"<pre>{escape(chr(10).join(lines))}</pre>") if lines else ""


def _provenance(runs: Sequence[RunOfPage]) -> str:
    rows = []
    for run in runs:
        told = {"directory": str(run.run_dir), "data": run.evaluation.data if run.evaluation else "", **run.facts}
        rows += [_fact(name, value) for name, value in told.items()]
    settings = [_fact(key, value) for key, value in sorted(runs[0].settings.items())]
    which = "All settings of the first" if len(runs) > 1 else "All settings"
    return section("How it was made", _details("Facts", rows) + (_details(which, settings) if settings else ""))


def _fact(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return f'<tr><td class="muted">{escape(name)}</td><td class="long">{escape(text)}</td></tr>'


def _details(title: str, rows: Sequence[str]) -> str:
    return f"<details><summary>{title}</summary><table><tbody>{''.join(rows)}</tbody></table></details>"
