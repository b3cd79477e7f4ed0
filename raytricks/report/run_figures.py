"""The figures of a run's page, drawn with plotly: curves, recall by class, reliability."""

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from raytricks.inference.evaluation import Evaluation
from raytricks.report.run_of_page import RunOfPage
from raytricks.report.study_drawing import empty_figure

COLORS = ("#3b82c4", "#e4572e", "#15a06e", "#b98a1d", "#8a5cc2", "#d64590")
_MOST_CLASSES, _MOST_POINTS = 100, 500


def curves(runs: Sequence[RunOfPage]) -> dict[str, go.Figure]:
    """Return the curves of loss, top-1 and lr by epoch, a colour a run; and the loss scale where there is one."""
    wanted = {
        "loss": ("loss", [("train_cross_entropy", "train", "dot"), ("val_cross_entropy", "evaluation", "solid")], 1),
        "top1": ("top-1", [("train_top1", "train", "dot"), ("val_top1", "evaluation", "solid"),
                           ("val_ema_top1", "average of the weights", "dash")], 100),
        "lr": ("lr", [("lr", "lr", "solid")], 1),
        "scale": ("loss scale", [("loss_scale", "loss scale", "solid")], 1),
    }  # fmt: skip
    figures = {}
    for name, (title, lines, factor) in wanted.items():
        figure = empty_figure("epoch", title)
        for number, run in enumerate(runs):
            for key, label, dash in lines:
                points = [(r["epoch"], factor * r[key]) for r in run.epochs if r.get(key) is not None]
                if name == "lr":
                    points = _by_step(run, key) or points
                if name == "scale" and {value for _, value in points} <= {1.0}:
                    continue
                if points:
                    figure.add_trace(_line(points, f"{run.name}: {label}" if len(runs) > 1 else label, number, dash))
        if figure.data:
            figures[name] = figure
    return figures


def _by_step(run: RunOfPage, key: str) -> list[tuple[float, float]]:
    """Return a value of the step records over the epochs done, thinned; nothing where there is one an epoch or less."""
    steps = [(r["step"], r[key]) for r in run.records if r["kind"] == "step" and r.get(key) is not None]
    if len(steps) <= len(run.epochs):
        return []
    ends = [(0, 0), *((r["step"], r["epoch"]) for r in run.epochs)]
    places = [[end[column] for end in ends] for column in (0, 1)]
    done = np.interp([step for step, _ in steps], places[0], places[1]).tolist()
    every = -(-len(steps) // _MOST_POINTS)
    return [(epoch, value) for epoch, (_, value) in zip(done, steps, strict=True)][::every]


def _line(points: list[tuple[float, float]], name: str, number: int, dash: str) -> go.Scatter:
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        name=escape(name),
        mode="lines+markers" if len(points) < 3 else "lines",
        line={"color": COLORS[number % len(COLORS)], "dash": dash, "width": 2},
    )


def recall_bars(found: Evaluation) -> go.Figure:
    """Draw the recall of each class with its interval, lowest first; of many classes the 100 lowest."""
    rows = [row for row in found.figures.classes if row.recall.value is not None]
    rows = sorted(rows, key=lambda row: row.recall.value or 0.0)[:_MOST_CLASSES]
    values = [100 * (row.recall.value or 0.0) for row in rows]
    above = [100 * (row.recall.high or 0.0) - value for row, value in zip(rows, values, strict=True)]
    below = [value - 100 * (row.recall.low or 0.0) for row, value in zip(rows, values, strict=True)]
    figure = empty_figure("", "recall")
    figure.add_trace(
        go.Bar(
            x=[escape(row.name) for row in rows],
            y=values,
            error_y={"type": "data", "array": above, "arrayminus": below, "color": "#808080", "thickness": 1.2},
            marker={"color": COLORS[0]},
            customdata=[row.support for row in rows],
            hovertemplate="%{x}: %{y:.1f}% of %{customdata} images<extra></extra>",
        )
    )
    figure.update_xaxes(
        type="category", categoryorder="total ascending", tickangle=-45 if len(rows) > 12 else 0, tickfont={"size": 11}
    )
    figure.update_yaxes(ticksuffix="%", range=[0, 104])
    return figure


def reliability(found: Evaluation) -> go.Figure:
    """Draw accuracy against confidence in bins of equal mass, before and after calibration."""
    figure = empty_figure("confidence", "accuracy")
    figure.add_trace(
        go.Scatter(
            x=[0, 100], y=[0, 100], mode="lines", name="perfectly calibrated", line={"color": "#9097a3", "dash": "dot"}
        )
    )
    sets = [("before calibration", found.figures, COLORS[1])]
    if found.calibrated is not None:
        sets.append(("after", found.calibrated, COLORS[2]))
    for name, figures, color in sets:
        bins = figures.ece.bins
        figure.add_trace(
            go.Scatter(
                x=[100 * b.mean_confidence for b in bins],
                y=[100 * b.accuracy for b in bins],
                mode="lines+markers",
                name=f"{name}: ECE {figures.ece.value:.4f} (by chance up to {figures.ece.null_95:.4f})",
                line={"color": color},
                customdata=[b.num_images for b in bins],
                hovertemplate="%{y:.1f}% right at %{x:.1f}%, %{customdata} images<extra></extra>",
            )
        )
    figure.update_xaxes(ticksuffix="%", range=[0, 102])
    figure.update_yaxes(ticksuffix="%", range=[0, 102])
    return figure
