"""The figures of a study's page, drawn with plotly. Trial 0, the default, and the best are marked in each."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from raytricks.report.study_drawing import (
    BEST_COLOR,
    DEFAULT_COLOR,
    STATUS_COLORS,
    drawing_rank,
    empty_figure,
    hover_text,
    line_trace,
    mark_trials,
    parallel_coordinates,
    points_trace,
)
from raytricks.tuning.analysis import best_so_far, finished_trials, pareto_front
from raytricks.tuning.outcome import StudyResult, TrialOutcome


@dataclass(frozen=True)
class StudyFigure:
    """A figure, or in its place the sentence why there is none.

    Attributes:
        name: its id in the page.
        caption: what to read from it.
    """

    name: str
    title: str
    caption: str
    figure: go.Figure | None
    absence: str = ""


def study_figures(result: StudyResult) -> list[StudyFigure]:
    """Draw the figures of a study, in the order of the page."""
    scored = [trial for trial in result.trials if trial.top1]
    finished = finished_trials(result.trials)
    no_epoch = "" if scored else "No trial completed an epoch."
    no_finish = "" if finished else "No trial finished."
    no_importance = "" if result.importance else "It takes at least 5 finished trials whose scores differ."
    specs: list[tuple[str, str, str, str, Callable[[StudyResult], go.Figure]]] = [
        (
            "history",
            "Progress of the search",
            "Each trial's last top-1 when it ended; the line is the best finished trial so far.",
            no_epoch,
            _history,
        ),
        (
            "parallel",
            "Values and score",
            "One line a trial, coloured by its score; faint ones were not finished and show their last score.",
            no_epoch or ("" if result.keys else "No key was searched."),
            parallel_coordinates,
        ),
        (
            "importance",
            "Which key mattered",
            "Part of the score's variation that a random forest over the finished trials owes to each key; "
            "bars: standard deviation over shuffles. With few trials it is a rough guide.",
            no_importance,
            _importance,
        ),
        (
            "cost",
            "Score against training time",
            "Finished trials; no other trial is both faster and better than one on the line (the Pareto front).",
            no_finish,
            _cost,
        ),
        (
            "curves",
            "Learning curves",
            "Top-1 on the selection split after each epoch; thin lines were stopped, failed or not finished.",
            no_epoch,
            _learning_curves,
        ),
    ]
    return [
        StudyFigure(name, title, caption, None if absence else draw(result), absence)
        for name, title, caption, absence, draw in specs
    ]


def plotly_script() -> str:
    """Return plotly.js, about 4.8 MB, free of anything that ends a script element."""
    return get_plotlyjs()


def _history(result: StudyResult) -> go.Figure:
    figure = empty_figure("minutes since the study's start", "top-1")
    ended = [trial for trial in result.trials if trial.top1]
    for status, color in STATUS_COLORS.items():
        group = [trial for trial in ended if trial.status == status]
        if group:
            points = [(trial.elapsed_s[-1] / 60, trial.top1[-1] * 100) for trial in group]
            figure.add_trace(points_trace(points, group, status, color))
    line = [(elapsed_s / 60, score * 100) for elapsed_s, score in best_so_far(result.trials)]
    if line:
        line.append((max(trial.elapsed_s[-1] for trial in ended) / 60, line[-1][1]))
        figure.add_trace(line_trace(line, "best so far", BEST_COLOR, shape="hv"))
    mark_trials(figure, result, lambda trial: (trial.elapsed_s[-1] / 60, trial.top1[-1] * 100))
    return figure


def _cost(result: StudyResult) -> go.Figure:
    figure = empty_figure("training time of the trial, minutes", "top-1")
    finished = {trial.number: trial for trial, _ in finished_trials(result.trials)}

    def place(trial: TrialOutcome) -> tuple[float, float]:
        return trial.train_s / 60, trial.top1[-1] * 100

    group = list(finished.values())
    figure.add_trace(points_trace([place(trial) for trial in group], group, "finished", STATUS_COLORS["finished"]))
    front = [place(finished[number]) for number in pareto_front(result.trials)]
    figure.add_trace(line_trace(front, "Pareto front", BEST_COLOR, shape="hv", mode="lines+markers"))
    mark_trials(figure, result, lambda trial: place(trial) if trial.number in finished else None)
    return figure


def _learning_curves(result: StudyResult) -> go.Figure:
    figure = empty_figure("epoch", "top-1")
    longest = max((trial.epochs for trial in result.trials), default=0)
    figure.update_xaxes(tickformat="d", rangemode="tozero", dtick=1 if longest <= 12 else None)
    named: set[str] = set()
    for trial in sorted(result.trials, key=lambda trial: drawing_rank(trial, result)):
        name, color, width = _curve_style(trial, result)
        figure.add_trace(
            go.Scatter(
                x=list(range(1, trial.epochs + 1)),
                y=[top1 * 100 for top1 in trial.top1],
                name=name,
                legendgroup=name,
                showlegend=bool(trial.top1) and name not in named,
                mode="lines" if trial.epochs > 1 else "markers",
                line={"color": color, "width": width},
                opacity=0.9 if trial.status == "finished" else 0.8,
                hovertemplate=f"{hover_text(trial)}<br>epoch %{{x}}: %{{y:.2f}}%<extra></extra>",
            )
        )
        named |= {name} if trial.top1 else set()
    return figure


def _curve_style(trial: TrialOutcome, result: StudyResult) -> tuple[str, str, float]:
    """Return the legend's name, the colour and the line width, in pixels, of a trial's curve."""
    if trial.number == 0:
        return "trial 0, the default", DEFAULT_COLOR, 3
    if trial.number == result.best:
        return f"trial {trial.number}, the best", BEST_COLOR, 3
    return trial.status, STATUS_COLORS[trial.status], 1.8 if trial.status == "finished" else 1


def _importance(result: StudyResult) -> go.Figure:
    figure = empty_figure("part of the explained variation", "")
    bars = sorted(result.importance.items(), key=lambda item: item[1][0])
    figure.add_trace(
        go.Bar(
            orientation="h",
            x=[mean for _, (mean, _) in bars],
            y=[escape(key) for key, _ in bars],
            error_x={"type": "data", "array": [deviation for _, (_, deviation) in bars], "color": "#808080"},
            marker={"color": STATUS_COLORS["finished"]},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(ticksuffix=" ", automargin=True, showgrid=False, type="category")
    figure.update_layout(height=130 + 34 * len(bars), bargap=0.4)
    return figure
