"""The figures of a run's page, drawn with plotly: curves, recall by class, confusion, reliability."""

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from raytricks.inference.evaluation import Evaluation
from raytricks.report.run_of_page import RunOfPage
from raytricks.report.study_drawing import empty_figure

COLORS = ("#3b82c4", "#e4572e", "#15a06e", "#b98a1d", "#8a5cc2", "#d64590")
_MOST_CLASSES = 100


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
                if name == "scale" and {value for _, value in points} <= {1.0}:
                    continue
                if points:
                    figure.add_trace(_line(points, f"{run.name}: {label}" if len(runs) > 1 else label, number, dash))
        if figure.data:
            figures[name] = figure
    return figures


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
    figure.update_xaxes(type="category", tickangle=-45 if len(rows) > 12 else 0, tickfont={"size": 11})
    figure.update_yaxes(ticksuffix="%", range=[0, 104])
    return figure


def confusion_map(found: Evaluation) -> tuple[go.Figure, list[int]]:
    """Draw the confusion matrix, each row in parts of its images; of many classes the 100 most confused.

    Returns:
        The figure, and which classes its rows and columns are.
    """
    counts = found.figures.confusion
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.arange(len(counts))
    if len(counts) > _MOST_CLASSES:
        shown = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_CLASSES])
    part = counts[np.ix_(shown, shown)]
    shares = 100 * part / np.maximum(1, counts[shown].sum(axis=1, keepdims=True))
    names = [escape(found.figures.class_names[number]) for number in shown]
    figure = empty_figure("answer", "true class")
    figure.add_trace(
        go.Heatmap(
            z=np.round(shares, 2),
            x=list(range(len(names))),
            y=list(range(len(names))),
            text=[[f"{count:,}" if count else "" for count in row] for row in part.tolist()],
            texttemplate="%{text}" if len(names) <= 12 else "",
            customdata=[[[names[i], names[j]] for j in range(len(names))] for i in range(len(names))],
            hovertemplate="%{customdata[0]} taken for %{customdata[1]}: %{text} (%{z:.1f}%)<extra></extra>",
            colorscale=[[0, "rgba(59,130,196,0)"], [0.02, "rgba(59,130,196,0.18)"], [1, "#1f4f80"]],
            zmin=0,
            zmax=100,
            colorbar={"ticksuffix": "%", "thickness": 12, "outlinewidth": 0},
        )
    )
    step = max(1, len(names) // 50)
    ticks = {"tickvals": list(range(0, len(names), step)), "ticktext": names[::step], "tickfont": {"size": 11}}
    figure.update_xaxes(**ticks, showgrid=False, tickangle=-45, side="bottom")
    figure.update_yaxes(**ticks, showgrid=False, autorange="reversed")
    figure.update_layout(height=min(900, max(420, 24 * len(names) + 160)))
    return figure, shown.tolist()


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
