"""Which images of an evaluation are worth looking at."""

from dataclasses import dataclass

import numpy as np

from raytricks.inference.calibration import log_probabilities
from raytricks.inference.evaluation import Evaluation
from raytricks.report.evaluation_lines import most_confused

MOST_THUMBNAILS = 300
_OF_EACH_KIND = 24
_CELLS, _OF_A_CELL = 40, 6


@dataclass(frozen=True)
class Noteworthy:
    """Numbers of images.

    Attributes:
        mistakes: wrong answers, most confident first.
        unsure: right answers, least confident first.
        of_cells: (true, predicted) of the most confused pairs -> some of their images, most confident first.
        confidence: (N,) of all images.
    """

    mistakes: tuple[int, ...]
    unsure: tuple[int, ...]
    of_cells: dict[tuple[int, int], tuple[int, ...]]
    confidence: np.ndarray

    @property
    def images(self) -> list[int]:
        """All of them once, at most MOST_THUMBNAILS."""
        chosen = dict.fromkeys([*self.mistakes, *self.unsure, *(i for cell in self.of_cells.values() for i in cell)])
        return list(chosen)[:MOST_THUMBNAILS]


def noteworthy(found: Evaluation) -> Noteworthy:
    """Choose images of an evaluation to show."""
    temperature = 1.0 if found.calibrated is None else found.calibrated.temperature
    predicted = found.logits.argmax(axis=1)
    confidence = np.exp(log_probabilities(found.logits, temperature).max(axis=1))
    order = np.argsort(-confidence, kind="stable")
    is_right = predicted == found.labels
    wrong = order[~is_right[order]]
    cells = {}
    for true, taken, _ in most_confused(found.figures.confusion, _CELLS):
        members = wrong[(found.labels[wrong] == true) & (predicted[wrong] == taken)]
        cells[true, taken] = tuple(members[:_OF_A_CELL].tolist())
    unsure = order[is_right[order]][::-1]
    return Noteworthy(tuple(wrong[:_OF_EACH_KIND].tolist()), tuple(unsure[:_OF_EACH_KIND].tolist()), cells, confidence)
