"""How a study's figures are drawn: colours, traces, and parallel coordinates.

Parallel coordinates have one vertical axis a searched key and one line a trial, coloured by its score. They are plain
lines, not plotly's own kind: that needs WebGL, which remote desktops lack, and can neither mark one line, nor fade
one, nor name it under the mouse.
"""

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
import math
from typing import Any

from plotly.colors import sample_colorscale
import plotly.graph_objects as go

from raytricks.tuning.analysis import scale_of, value_text
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


_SCORE_COLORS = [[0.0, "#6b7fd7"], [0.5, "#2ba58c"], [1.0, "#eba01c"]]
_MOST_TICKS = 6
_MOST_VALUE_TICKS = 5
_CLOSEST_TICKS = 0.07
"""Of the axis's length."""


def parallel_coordinates(result: StudyResult) -> go.Figure:
    """Draw the trials that completed an epoch; the last axis is the score."""
    drawn = sorted((trial for trial in result.trials if trial.top1), key=lambda trial: drawing_rank(trial, result))
    columns = [[trial.values.get(key) for trial in drawn] for key in result.keys]
    axes = [Axis(column) for column in columns] + [Axis([trial.top1[-1] * 100 for trial in drawn], suffix="%")]
    titles = [escape(key).replace(".", ".<br>") for key in result.keys] + ["top-1"]
    scores = [trial.score for trial in drawn if trial.score is not None] or [trial.top1[-1] for trial in drawn]
    low, high = min(scores), max(scores)
    figure = empty_figure("", "")
    for row, trial in enumerate(drawn):
        part = (trial.top1[-1] - low) / (high - low) if high > low else 1.0
        figure.add_trace(_parallel_line(trial, result, [axis.positions[row] for axis in axes], part))
    _draw_axes(figure, axes, titles)
    figure.add_trace(_color_bar(low * 100, high * 100))
    return figure


def _parallel_line(trial: TrialOutcome, result: StudyResult, positions: list[float], part: float) -> go.Scatter:
    """Return a trial's line over the axes; `part` is its place between the lowest and the highest score."""
    is_default, is_best = trial.number == 0, trial.number == result.best
    symbol = "diamond" if is_default else "star" if is_best else "circle"
    return go.Scatter(
        x=list(range(len(positions))),
        y=positions,
        mode="lines+markers",
        name="trial 0, the default" if is_default else f"trial {trial.number}, the best",
        showlegend=is_default or is_best,
        line={
            "color": sample_colorscale(_SCORE_COLORS, [min(max(part, 0.0), 1.0)])[0],
            "width": 4 if is_default or is_best else 1.8,
            "dash": "dash" if is_default else "solid",
        },
        marker={"size": 11 if is_default or is_best else 4, "symbol": symbol},
        opacity=1.0 if is_default or is_best else 0.85 if trial.status == "finished" else 0.28,
        hovertemplate=f"{hover_text(trial)}<br>top-1 {trial.top1[-1]:.2%}<extra></extra>",
    )


class Axis:
    """A vertical axis: where each value lies on it, 0 bottom to 1 top, and its ticks.

    Numbers lie on a linear or log scale between the smallest and the largest, anything else on even steps. One
    value alone lies in the middle.
    """

    def __init__(self, values: Sequence[Any], suffix: str = "") -> None:
        scale = scale_of(values)
        if scale == "category":
            texts = list(dict.fromkeys(value_text(value) for value in sorted(values, key=repr)))
            numbers = [float(texts.index(value_text(value))) for value in values]
            ticks = [(float(code), escape(text)) for code, text in enumerate(texts)]
        else:
            convert = math.log10 if scale == "log" else float
            numbers = [convert(value) for value in values]
            shown = _tick_values(sorted({float(value) for value in values}), is_log=scale == "log")
            ticks = [(convert(value), f"{value:.6g}{suffix}") for value in shown]
        low, high = min(numbers), max(numbers)

        def place(number: float) -> float:
            return (number - low) / (high - low) if high > low else 0.5

        self.positions = [place(number) for number in numbers]
        self.ticks = [(place(number), text) for number, text in ticks]


def _tick_values(distinct: list[float], *, is_log: bool) -> list[float]:
    """Return round values within the range, or the values themselves where they are few and apart."""
    low, high = distinct[0], distinct[-1]
    scaled = [math.log10(value) if is_log else value for value in distinct]
    closest = _CLOSEST_TICKS * (scaled[-1] - scaled[0])
    apart = [right - left >= closest for left, right in pairwise(scaled)]
    if len(distinct) <= _MOST_VALUE_TICKS and all(apart):
        return distinct
    if is_log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fine = [m * 10.0**decade for decade in decades for m in (1, 2, 5)]
        fine = [value for value in fine if low <= value <= high]
        coarse = [10.0**decade for decade in decades if low <= 10.0**decade <= high]
        return fine if len(fine) <= _MOST_TICKS else coarse
    rough = (high - low) / _MOST_TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    return [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _draw_axes(figure: go.Figure, axes: list[Axis], titles: list[str]) -> None:
    for index, axis in enumerate(axes):
        figure.add_shape(type="line", x0=index, x1=index, y0=0, y1=1, line={"color": "#808080", "width": 1})
        for position, text in axis.ticks:
            figure.add_annotation(
                x=index, y=position, text=text, showarrow=False, xanchor="right", xshift=-7, font={"size": 11}
            )
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=titles,
        side="top",
        showgrid=False,
        showline=False,
        range=[-0.45, len(axes) - 0.8],
    )
    figure.update_yaxes(visible=False, range=[-0.05, 1.05])
    figure.update_layout(height=460, margin={"t": 80, "l": 10, "r": 10, "b": 40}, legend={"y": -0.02})


def _color_bar(low: float, high: float) -> go.Scatter:
    """Return a trace of nothing but the scale of the scores' colours, percent."""
    if low == high:
        low, high = low - 0.5, high + 0.5
    bar = {"thickness": 12, "ticksuffix": "%", "outlinewidth": 0}
    marker = {
        "color": [low],
        "cmin": low,
        "cmax": high,
        "colorscale": _SCORE_COLORS,
        "showscale": True,
        "colorbar": bar,
    }
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False, hoverinfo="skip")
