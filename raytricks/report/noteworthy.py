"""Which images of an evaluation are worth looking at."""

from dataclasses import dataclass

import numpy as np

from raytricks.inference.calibration import log_probabilities
from raytricks.inference.evaluation import Evaluation
from raytricks.report.evaluation_lines import most_confused

MOST_THUMBNAILS = 300
"""Of a page, however many runs are on it."""
_OF_EACH_KIND = 24
_OF_A_CELL = 6


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
        """All of them once."""
        return list(
            dict.fromkeys([*self.mistakes, *self.unsure, *(i for cell in self.of_cells.values() for i in cell)])
        )


def noteworthy(found: Evaluation, num_runs: int = 1) -> Noteworthy:
    """Choose images of an evaluation to show, at most MOST_THUMBNAILS / num_runs of them."""
    most = MOST_THUMBNAILS // num_runs
    of_each = min(_OF_EACH_KIND, most * _OF_EACH_KIND // MOST_THUMBNAILS)
    temperature = 1.0 if found.calibrated is None else found.calibrated.temperature
    predicted = found.logits.argmax(axis=1)
    confidence = np.exp(log_probabilities(found.logits, temperature).max(axis=1))
    order = np.argsort(-confidence, kind="stable")
    is_right = predicted == found.labels
    wrong = order[~is_right[order]]
    cells = {}
    for true, taken, _ in most_confused(found.figures.confusion, (most - 2 * of_each) // _OF_A_CELL):
        members = wrong[(found.labels[wrong] == true) & (predicted[wrong] == taken)]
        cells[true, taken] = tuple(members[:_OF_A_CELL].tolist())
    unsure = order[is_right[order]][::-1]
    return Noteworthy(tuple(wrong[:of_each].tolist()), tuple(unsure[:of_each].tolist()), cells, confidence)
