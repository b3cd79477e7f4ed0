"""The page of a study, `report.html`: one file that opens offline and asks nothing of any network.

study_page.html is its frame; here is what stands in it. Every text of the study is escaped, in the page and
in the figures' data.
"""

from html import escape
from importlib.resources import files
import json
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from raytricks.files import write_atomically
from raytricks.tuning.analysis import value_text
from raytricks.tuning.certificate import interval_text, mean_and_deviation, points_text, search_optimism
from raytricks.tuning.outcome import Arm, Certificate, StudyResult, TrialOutcome

if TYPE_CHECKING:
    from raytricks.report.study_figures import StudyFigure

_NONE = "–"


def write_study_page(result: StudyResult, path: Path) -> None:
    """Write the page of a study, finished or not, in place of what was there; about 5 MB, most of it plotly.js."""
    from raytricks.report.study_figures import plotly_script, study_figures  # plotly costs half a second to import

    figures = study_figures(result)
    page = Template(page_file("study_page.html")).substitute(
        style=page_file("page.css"),
        script=page_file("page.js"),
        title=escape(f"Study {result.name} on {result.data_name}"),
        headline=_headline(result),
        certificate=_certificate(result.certificate),
        figures="\n".join(map(_figure, figures)),
        trials=_trials(result),
        correlation=_correlation(result.rung_correlation),
        provenance=_provenance(result),
        plotly=plotly_script(),
        figure_data=_figure_data(figures),
    )
    write_atomically(path, page.encode())


def page_file(name: str) -> str:
    """Return a file that pages are made of."""
    return files("raytricks.report").joinpath(name).read_text(encoding="utf-8")


def _headline(result: StudyResult) -> str:
    trials = {trial.number: trial for trial in result.trials}
    default, best = trials.get(0), trials.get(-1 if result.best is None else result.best)
    counts = _counts(result)
    if best is None or best.score is None:
        reason = next((trial.reason for trial in result.trials if trial.status == "failed" and trial.reason), None)
        text = "No trial finished, so there is no best one." + (f" The first failure: {reason}" if reason else "")
        return f'<p class="muted">{counts}</p><section><p class="headline">{escape(text)}</p></section>'
    text = f"Trial {best.number} is the best: {best.score:.2%} top-1 on the selection split"
    if best is default:
        text = f"No trial beat the default, trial 0: {best.score:.2%} top-1 on the selection split"
    elif default is not None and default.score is not None:
        text += f", {points_text(best.score - default.score)} points against the default's {default.score:.2%}"
    elif default is not None:
        text += f"; the default, trial 0, is {default.status}"
    return (
        f'<p class="muted">{counts}</p><section><p class="headline">{escape(text)}.</p>'
        f"{_values(result.keys, default, best)}</section>"
    )


def _counts(result: StudyResult) -> str:
    states = [trial.status for trial in result.trials]
    parts = [f"{states.count(s)} {s}" for s in ("finished", "stopped", "failed", "unfinished") if s in states]
    trials = "1 trial" if len(states) == 1 else f"{len(states)} trials"
    return escape(trials + (f": {', '.join(parts)}" if parts else ""))


def _values(keys: tuple[str, ...], default: TrialOutcome | None, best: TrialOutcome) -> str:
    """Return the table of the best trial's values beside the default's; what differs stands out."""
    rows = []
    for key in keys:
        value = best.values.get(key)
        usual = None if default is None else default.values.get(key)
        changed = default is not None and value != usual
        rows.append(
            f"<tr{' class=best' if changed else ''}><td>{escape(key)}</td>"
            f'<td class="number">{_NONE if default is None else escape(value_text(usual))}</td>'
            f'<td class="number">{escape(value_text(value))}</td></tr>'
        )
    head = f'<tr><th>key</th><th class="number">default</th><th class="number">trial {best.number}</th></tr>'
    return _table(head, rows)


def _certificate(certificate: Certificate | None) -> str:
    title = "Certificate: retrained with fresh seeds"
    if certificate is None:
        text = "None yet: the winner was not trained again, so its score is still that of the luckiest trial."
        return f'<section><h2>{title}</h2><p class="muted">{text}</p></section>'
    head = (
        '<tr><th>setting</th><th class="number">search</th><th class="number">test, mean ± sd</th>'
        "<th>each seed's test top-1</th></tr>"
    )
    verdict = escape(certificate.verdict)
    opening = f'<section><h2>{title}</h2><p class="verdict">{verdict}</p>'
    if certificate.winner.name == "default":  # nothing to compare it with
        return f"{opening}{_table(head, [_arm(certificate.default)])}</section>"
    arms = _table(head, [_arm(certificate.default), _arm(certificate.winner)])
    text = (
        f"Difference on {certificate.num_test_images:,} test images: {points_text(certificate.difference)} points"
        f"{interval_text(certificate)}."
    )
    optimism = search_optimism(certificate)
    if optimism is not None:
        text += (
            f" The winner's search score was {optimism * 100:.2f} points above its mean when retrained: a search "
            "picks the luckiest trial."
        )
    return f"{opening}{arms}<p>{escape(text)}</p></section>"


def _arm(arm: Arm) -> str:
    search = _NONE if arm.search_top1 is None else f"{arm.search_top1:.2%}"
    seeds = ", ".join(f"{top1:.2%} (seed {seed})" for seed, top1 in zip(arm.seeds, arm.test_top1, strict=True))
    test = mean_and_deviation(arm).replace("+-", "±")
    return f'<tr><td>{arm.name}</td><td class="number">{search}</td><td class="number">{test}</td><td>{seeds}</td></tr>'


def _figure(figure: "StudyFigure") -> str:
    body = f'<p class="muted">{escape(figure.absence)}</p>'
    if figure.figure is not None:
        body = (
            f'<p class="muted">{escape(figure.caption)}</p>'
            f'<div class="wide"><div class="figure" id="{figure.name}"></div></div>'
        )
    return f"<section><h2>{escape(figure.title)}</h2>{body}</section>"


def _figure_data(figures: list["StudyFigure"]) -> str:
    """Return the figures as one JSON object, in which no "<" can end or open an element.

    plotly 7 escapes it too, undocumented.
    """
    parts = [f"{json.dumps(f.name)}: {f.figure.to_json()}" for f in figures if f.figure is not None]
    return ("{" + ", ".join(parts) + "}").replace("<", "\\u003c")


def _trials(result: StudyResult) -> str:
    columns = [("trial", ""), ("status", ""), ("score", "number"), ("epochs", "number"), ("seconds", "number")]
    columns += [*((key, "number") for key in result.keys), ("reason", ""), ("directory", "")]
    head = "".join(
        f'<th class="{kind}"><button type="button">{_breakable(name)}</button></th>' for name, kind in columns
    )
    rows = [_trial_row(trial, result) for trial in result.trials]
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    note = "Click a heading to sort. Only finished trials have a score."
    return f'<section><h2>All trials</h2><p class="muted">{note}</p><div class="wide">{table}</div></section>'


def _breakable(key: str) -> str:
    """Return a dotted key, escaped, that a narrow column may break after a dot or an underscore."""
    return escape(key).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _trial_row(trial: TrialOutcome, result: StudyResult) -> str:
    score = _NONE if trial.score is None else f"{trial.score:.2%}"
    cells = [
        _cell(trial.number, f"{trial.number}{' (default)' if trial.number == 0 else ''}", "short"),
        _cell(trial.status, trial.status),
        _cell(trial.score, score, "number"),
        _cell(trial.epochs, str(trial.epochs), "number"),
        _cell(trial.train_s, f"{trial.train_s:,.1f}", "number"),
        *(_cell(trial.values.get(key), value_text(trial.values.get(key)), "number") for key in result.keys),
        _cell(trial.reason, trial.reason or "", "long"),
        _cell(trial.run_dir, trial.run_dir.removeprefix(f"{result.study_dir}/"), "long"),
    ]
    return f"<tr{' class=best' if trial.number == result.best else ''}>{''.join(cells)}</tr>"


def _cell(value: Any, text: str, kind: str = "") -> str:
    """Return a table cell that sorts by its value, not by its text; None sorts last."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    order = "" if value is None else repr(value) if is_number else text
    return f'<td class="{kind}" data-sort="{escape(order)}">{escape(text)}</td>'


def _correlation(correlation: dict[int, float]) -> str:
    title = "Do early scores foretell the final one?"
    if not correlation:
        text = "Unknown: it takes at least 3 finished trials whose scores differ."
        return f'<section><h2>{title}</h2><p class="muted">{text}</p></section>'
    text = (
        "Spearman's rank correlation of the top-1 after an epoch with the final score, over the finished trials. "
        "Near 1: stopping there loses little. Near 0: the scheduler stops at random, give trials longer."
    )
    head = '<tr><th class="number">after epoch</th><th class="number">correlation</th></tr>'
    rows = [
        f'<tr><td class="number">{epoch}</td><td class="number">{value:+.2f}</td></tr>'
        for epoch, value in sorted(correlation.items())
    ]
    return f'<section><h2>{title}</h2><p class="muted">{text}</p>{_table(head, rows)}</section>'


def _provenance(result: StudyResult) -> str:
    facts = {"directory": result.study_dir, **result.provenance}
    rows = [
        f'<tr><td class="muted">{escape(str(name))}</td><td class="long">{escape(_fact(value))}</td></tr>'
        for name, value in facts.items()
    ]
    return f"<section><h2>Provenance</h2>{_table('', rows)}</section>"


def _fact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _table(head: str, rows: list[str]) -> str:
    thead = f"<thead>{head}</thead>" if head else ""
    return f'<div class="wide"><table>{thead}<tbody>{"".join(rows)}</tbody></table></div>'
