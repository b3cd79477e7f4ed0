"""What the page's script draws a confusion matrix from, and which images lie behind its cells."""

from typing import Any

import numpy as np

from raytricks.inference.evaluation import Evaluation
from raytricks.report.evaluation_lines import most_confused
from raytricks.report.noteworthy import Noteworthy

MOST_CLASSES = 100
_NAMED_IMAGES, _NAMED_OF_A_CELL = 2000, 12


def confusion_data(found: Evaluation) -> dict[str, Any]:
    """Return names, counts and the images of each row; of many classes the 100 most confused."""
    counts = found.figures.confusion
    shown = shown_classes(counts)
    wrong = _wrong(counts)
    return {
        "classes": shown.tolist(),
        "names": [found.figures.class_names[number] for number in shown],
        "counts": counts[np.ix_(shown, shown)].tolist(),
        "totals": counts[shown].sum(axis=1).tolist(),
        "worst": np.argsort(-wrong[shown], kind="stable").tolist(),
    }


def shown_classes(counts: np.ndarray) -> np.ndarray:
    """Return the numbers of the classes that are drawn, in order."""
    if len(counts) <= MOST_CLASSES:
        return np.arange(len(counts))
    return np.sort(np.argsort(-_wrong(counts), kind="stable")[:MOST_CLASSES])


def _wrong(counts: np.ndarray) -> np.ndarray:
    """Return for each class the images of it that are mistaken, and those that are mistaken for it."""
    return counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()


def images_of_cells(found: Evaluation, seen: Noteworthy) -> dict[str, list[int]]:
    """Return "true,predicted" -> images of the cells off the diagonal, most confident first, worst cells first.

    At most a dozen images of a cell and 2,000 of all; those that have a thumbnail come first by construction.
    """
    predicted = found.logits.argmax(axis=1)
    order = np.argsort(-seen.confidence, kind="stable")
    members: dict[tuple[int, int], list[int]] = {}
    for index in order[predicted[order] != found.labels[order]].tolist():
        kept = members.setdefault((int(found.labels[index]), int(predicted[index])), [])
        if len(kept) < _NAMED_OF_A_CELL:
            kept.append(index)
    told, left = {}, _NAMED_IMAGES
    for true, taken, _ in most_confused(found.figures.confusion, found.figures.num_images):
        kept = members[true, taken][:left]
        left -= len(kept)
        told[f"{true},{taken}"] = kept
        if not left:
            break
    return told
