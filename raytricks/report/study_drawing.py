"""What the figures of a study's page share: colours, empty axes, points, lines and the marked trials.

Colours are readable on light and dark; the page sets the text's colour. Texts are escaped, because plotly
reads them as HTML.
"""

from collections.abc import Callable, Sequence
from html import escape

import plotly.graph_objects as go

from raytricks.tuning.analysis import value_text
from raytricks.tuning.outcome import StudyResult, TrialOutcome

STATUS_COLORS = {"finished": "#3b82c4", "stopped": "#9097a3", "failed": "#d64545", "unfinished": "#b98a1d"}
DEFAULT_COLOR, BEST_COLOR = "#e4572e", "#15a06e"
_GRID = "rgba(128,128,128,0.22)"


def empty_figure(x_title: str, y_title: str) -> go.Figure:
    """Return titled axes on a transparent ground; an axis named top-1 is in percent."""
    layout = {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": 400,
        "margin": {"t": 28, "l": 60, "r": 16, "b": 48},
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#9097a3", "activecolor": BEST_COLOR},
        "legend": {"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top"},
    }
    axis = {"gridcolor": _GRID, "zeroline": False, "linecolor": _GRID, "automargin": True}
    figure = go.Figure(layout=layout)
    figure.update_xaxes(title={"text": x_title, "standoff": 8}, **axis)
    figure.update_yaxes(title={"text": y_title, "standoff": 8}, ticksuffix="%" if y_title == "top-1" else "", **axis)
    return figure


def points_trace(
    points: Sequence[tuple[float, float]], trials: Sequence[TrialOutcome], name: str, color: str
) -> go.Scatter:
    """Return a marker a trial, which the mouse names."""
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="markers",
        name=name,
        marker={"color": color, "size": 8},
        text=[hover_text(trial) for trial in trials],
        hovertemplate="%{text}<br>%{y:.2f}% after %{x:.1f} min<extra></extra>",
    )


def line_trace(
    points: Sequence[tuple[float, float]], name: str, color: str, *, shape: str, mode: str = "lines"
) -> go.Scatter:
    """Return a line through points, silent under the mouse."""
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode=mode,
        name=name,
        line={"color": color, "width": 2, "shape": shape},
        marker={"size": 8},
        hoverinfo="skip",
    )


def mark_trials(
    figure: go.Figure, result: StudyResult, place: Callable[[TrialOutcome], tuple[float, float] | None]
) -> None:
    """Ring the default and the best, where they have a place."""
    marks = [(0, "trial 0, the default", DEFAULT_COLOR, "diamond-open", 16)]
    if result.best is not None:
        marks.append((result.best, f"trial {result.best}, the best", BEST_COLOR, "circle-open", 14))
    for trial in result.trials:
        for number, name, color, symbol, size in marks:
            spot = place(trial) if trial.number == number and trial.top1 else None
            if spot is not None:
                marker = {"symbol": symbol, "size": size, "color": color, "line": {"width": 2.5}}
                figure.add_trace(
                    go.Scatter(x=[spot[0]], y=[spot[1]], mode="markers", name=name, marker=marker, hoverinfo="skip")
                )


def drawing_rank(trial: TrialOutcome, result: StudyResult) -> tuple[bool, bool, bool, int]:
    """Return a key that sorts what must stay visible last, which is drawn on top."""
    return trial.number == result.best, trial.number == 0, trial.status == "finished", trial.number


def hover_text(trial: TrialOutcome) -> str:
    """Return what the mouse shows of a trial, escaped."""
    values = [f"{escape(key)} = {escape(value_text(value))}" for key, value in trial.values.items()]
    return "<br>".join([f"<b>trial {trial.number}</b>, {trial.status}", *values])
