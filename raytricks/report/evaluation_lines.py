"""What an evaluation found, as lines of text and as a table."""

from collections.abc import Iterator
import csv
import io

import numpy as np

from raytricks.inference.evaluation import Evaluation
from raytricks.inference.figures import ClassFigures
from raytricks.inference.intervals import Estimate

_SHOWN_CLASSES, _SHOWN_CONFUSIONS = 20, 5
_COLUMNS = ("class", "images", "predicted", "precision", "recall", "f1")


def evaluation_lines(found: Evaluation) -> list[str]:
    """Return an evaluation's figures; of many classes the ones with the lowest recall."""
    figures = found.figures
    top5 = "" if figures.top5 is None else f"   top-5 {percent(figures.top5)}"
    return [
        f"model       {found.model}{_how(found)}",
        f"data        {found.data}, {figures.num_images:,} images of {figures.num_classes} classes",
        f"top-1       {percent(figures.top1)}{top5}",
        f"loss        cross-entropy {number(figures.cross_entropy)}   Brier {number(figures.brier)}",
        f"balanced    accuracy {percent(figures.balanced_accuracy)}",
        f"macro       precision {percent(figures.macro_precision)}   recall {percent(figures.macro_recall)}   "
        f"F1 {percent(figures.macro_f1)}",
        f"weighted    precision {percent(figures.weighted_precision)}   recall {percent(figures.weighted_recall)}   "
        f"F1 {percent(figures.weighted_f1)}",
        *_calibration_lines(found),
        *_comparison_lines(found),
        *(f"note        {note}" for note in found.notes),
        "",
        *_class_lines(found),
        *_confusion_lines(found),
        "",
        "[low, high]: 95%; Wilson for top-1, top-5, precision and recall of a class, else bootstrap over the images",
    ]


def evaluation_csv(found: Evaluation) -> str:
    """Return a row a class: counts, rates and the bounds of their intervals; empty where undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rates = ("precision", "recall", "f1")
    bounds = [f"{name}{suffix}" for name in rates for suffix in ("", "_low", "_high")]
    writer.writerow(["class", "images", "predicted", *bounds])
    for row in found.figures.classes:
        values = [bound for name in rates for bound in _bounds(getattr(row, name))]
        writer.writerow([row.name, row.support, row.predicted, *("" if v is None else repr(v) for v in values)])
    return text.getvalue()


def _bounds(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.value, estimate.low, estimate.high


def percent(estimate: Estimate) -> str:
    """Return 91.30% [89.9, 92.5]."""
    if estimate.value is None:
        return "undefined"
    bounds = "" if estimate.low is None or estimate.high is None else _pair(100 * estimate.low, 100 * estimate.high, 1)
    return f"{estimate.value:.2%}{bounds}"


def number(estimate: Estimate) -> str:
    """Return 0.2513 [0.2310, 0.2722]."""
    if estimate.value is None:
        return "undefined"
    bounds = "" if estimate.low is None or estimate.high is None else _pair(estimate.low, estimate.high, 4)
    return f"{estimate.value:.4f}{bounds}"


def _pair(low: float, high: float, digits: int) -> str:
    return f" [{low:.{digits}f}, {high:.{digits}f}]"


def _how(found: Evaluation) -> str:
    told = found.settings
    return f", {told['weights']} weights, in {told['precision']}" if "precision" in told else ""


def _calibration_lines(found: Evaluation) -> list[str]:
    def told(figures) -> str:
        ece = figures.ece
        return (
            f"ECE {ece.value:.4f} (a perfectly calibrated model: {ece.null_mean:.4f} on average, below "
            f"{ece.null_95:.4f} in 95%)"
        )

    lines = [f"calibrated  {'before' if found.calibrated else 'not'}: {told(found.figures)}"]
    after = found.calibrated
    if after is not None:
        temperature = f"T = {after.temperature:.3f}"
        lines.append(f"            after:  {told(after)}; loss {number(after.cross_entropy)}, {temperature}")
    return lines


def _comparison_lines(found: Evaluation) -> list[str]:
    pair = found.comparison
    if pair is None:
        return []
    difference = pair.difference
    assert difference.value is not None and difference.low is not None and difference.high is not None
    points = f"{100 * difference.value:+.2f} points [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    verdict = "they differ" if pair.p_value < 0.05 else "no difference can be told"
    return [
        f"against     {found.compared_with}: {pair.accuracy_b:.2%}; {points}; only the first is right on "
        f"{pair.num_only_a_correct:,} images, only the other on {pair.num_only_b_correct:,}; McNemar's exact "
        f"p = {pair.p_value:.3g}: {verdict}"
    ]


def _class_lines(found: Evaluation) -> Iterator[str]:
    classes = found.figures.classes
    shown: list[ClassFigures] = list(classes)
    if len(classes) > _SHOWN_CLASSES:
        scored = [row for row in classes if row.recall.value is not None]
        shown = sorted(scored, key=lambda row: row.recall.value or 0.0)[:_SHOWN_CLASSES]
        yield f"the {len(shown)} classes with the lowest recall (--csv and --json have all)"
    cells = [(row.name, f"{row.support:,}", f"{row.predicted:,}", *map(percent, (row.precision, row.recall, row.f1)))
             for row in shown]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    for name, *others in (_COLUMNS, *cells):
        rest = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        yield "  ".join((name.ljust(widths[0]), *rest))


def _confusion_lines(found: Evaluation) -> Iterator[str]:
    pairs = most_confused(found.figures.confusion)
    if pairs:
        yield ""
    names = found.figures.class_names
    for true, predicted, count in pairs:
        yield f"{count:,} of {names[true]} taken for {names[predicted]}"


def most_confused(confusion: np.ndarray, count: int = _SHOWN_CONFUSIONS) -> list[tuple[int, int, int]]:
    """Return the (true, predicted, images) cells off the diagonal with the most images, worst first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    cells = [(int(i // len(wrong)), int(i % len(wrong)), int(wrong.flat[i])) for i in order]
    return [cell for cell in cells if cell[2]]
