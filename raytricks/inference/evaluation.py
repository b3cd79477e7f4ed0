"""What a model is worth on labelled images: the figures, before and after calibration, and against another model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from raytricks.inference.comparison import Comparison, compare_models
from raytricks.inference.figures import Figures, figures_of


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The answers of a model to labelled images, and what they are worth.

    Attributes:
        model: where it came from.
        data: what it was evaluated on.
        figures: of the plain softmax; cross_entropy is the number that training logs.
        calibrated: of the softmax that `predict` uses; None where the model is not calibrated.
        comparison: with another model on the same images; None: there was none.
        logits: (N, K) float32.
        labels: (N,) int64.
        image_names: (N,) for people.
        notes: what could not be mapped, and what else must be known.
    """

    model: str
    data: str
    figures: Figures
    calibrated: Figures | None
    logits: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    image_names: tuple[str, ...] = field(repr=False, default=())
    comparison: Comparison | None = None
    compared_with: str | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        found = {"model": self.model, "data": self.data, **self.settings, "notes": list(self.notes)}
        found |= self.figures.as_dict()
        if self.calibrated is not None:
            names = ("temperature", "cross_entropy", "brier", "ece")
            found["calibrated"] = {name: self.calibrated.as_dict()[name] for name in names}
        if self.comparison is not None:
            found["comparison"] = {"with": self.compared_with, **asdict(self.comparison)}
        return found


def evaluation_of(
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    temperature: float,
    cross_entropy: float,
    **told: Any,
) -> Evaluation:
    """Measure answers.

    Args:
        temperature: that the model is calibrated with; 1: it is not.
        cross_entropy: as training's evaluation sums it up.
        told: the other fields of `Evaluation`.
    """
    figures = figures_of(logits, labels, class_names)
    figures = replace(figures, cross_entropy=replace(figures.cross_entropy, value=cross_entropy))
    calibrated = None if temperature == 1 else figures_of(logits, labels, class_names, temperature=temperature)
    return Evaluation(figures=figures, calibrated=calibrated, logits=logits, labels=labels, **told)


def compared(first: Evaluation, second: Evaluation) -> Evaluation:
    """Return the first evaluation with its comparison to the second, of the same images."""
    correct = [of.logits.argmax(axis=1) == of.labels for of in (first, second)]
    return replace(first, comparison=compare_models(*correct), compared_with=second.model)
