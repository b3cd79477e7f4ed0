"""The rows of a prediction: a part of the images answered, as an Arrow table."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from raytricks.data.store import shared_pool
from raytricks.data.threads import map_in_order
from raytricks.errors import ConfigError, DataError
from raytricks.inference.calibration import log_probabilities
from raytricks.inference.images import ImageList
from raytricks.inference.trained_model import TrainedModel

UNSURE = "unsure"
_BATCHES_AHEAD = 3


@dataclass(frozen=True)
class RowSettings:
    """What the rows hold.

    Attributes:
        top: classes in a row, most probable first.
        threshold: least confidence of an answer; below it the label is "unsure". None: every image gets a label.
        of_plain_softmax: the threshold is of the softmax before calibration, which it was chosen by.
        embeddings: also what the last linear layer is given.
    """

    top: int = 5
    threshold: float | None = None
    of_plain_softmax: bool = False
    embeddings: bool = False


class RowMaker:
    """Answers images in order; an image that cannot be read becomes a row with its error.

    Raises:
        ConfigError: embeddings of a model that ends with no linear layer.
    """

    def __init__(self, model: TrainedModel, images: ImageList, settings: RowSettings) -> None:
        self._model, self._images, self._settings = model, images, settings
        self._features = _Features(model.model) if settings.embeddings else None

    def tables(self, indices: Iterable[int], sizes: Iterable[int]) -> Iterator[pa.Table]:
        """Yield the rows of images, cut into tables of these sizes; the next images are decoded meanwhile."""
        ahead = _BATCHES_AHEAD * self._model.execution.batch_size
        decoded = map_in_order(shared_pool(None), self._decoded, indices, ahead)
        for size in sizes:
            pieces = []
            while size:
                batch = list(islice(decoded, min(size, self._model.execution.batch_size)))
                if not batch:
                    raise AssertionError("fewer images than the tables are to hold")
                pieces.append(self._table(batch))
                size -= len(batch)
            yield pa.concat_tables(pieces)

    def _decoded(self, index: int) -> tuple[str, Tensor | None, str | None]:
        name = self._images.name(index)
        try:
            return name, self._model.preprocess.of_encoded(self._images.read(index), name), None
        except DataError as error:
            return name, None, str(error)

    def _table(self, batch: list[tuple[str, Tensor | None, str | None]]) -> pa.Table:
        squares = [square for _, square, _ in batch if square is not None]
        rows = np.flatnonzero([square is not None for _, square, _ in batch])
        model, settings = self._model, self._settings
        logits = np.empty((0, model.num_classes), np.float32)
        features = None
        if squares:
            logits = model.logits_of_squares(torch.stack(squares)).cpu().numpy()
            features = None if self._features is None else self._features.take()
        probabilities = model.probabilities(logits)
        order = np.argsort(-logits, axis=1, kind="stable")[:, : settings.top]
        scores = np.take_along_axis(probabilities, order, axis=1)
        names = np.array(model.class_names, object)[order]
        unsure = self._is_unsure(logits, scores)
        count = len(batch)
        labels = np.where(unsure, UNSURE, names[:, 0]) if len(rows) else names[:, 0]
        columns = {
            "image": pa.array([name for name, _, _ in batch], pa.string()),
            "label": _spread(labels, rows, count, pa.string()),
            "score": _spread(scores[:, 0], rows, count, pa.float64()),
            "top_labels": _spread(list(names.tolist()), rows, count, pa.list_(pa.string())),
            "top_scores": _spread(list(scores.tolist()), rows, count, pa.list_(pa.float64())),
            "error": pa.array([error for _, _, error in batch], pa.string()),
        }
        if settings.embeddings:
            values = [] if features is None else list(features)
            columns["embedding"] = _spread(values, rows, count, pa.list_(pa.float32()))
        return pa.table(columns)

    def _is_unsure(self, logits: np.ndarray, scores: np.ndarray) -> np.ndarray:
        settings = self._settings
        if settings.threshold is None:
            return np.zeros(len(logits), bool)
        confidence = plain_confidence(logits) if settings.of_plain_softmax else scores[:, 0]
        return confidence < settings.threshold


def plain_confidence(logits: np.ndarray) -> np.ndarray:
    """Return the (N,) highest probability of the softmax that nothing was fitted to."""
    return np.exp(log_probabilities(logits).max(axis=1))


def _spread(values, rows: np.ndarray, count: int, kind: pa.DataType) -> pa.Array:
    """Return a column in which the images that were answered have values, the others none."""
    cells: list = [None] * count
    for row, value in zip(rows, values, strict=True):
        cells[row] = value
    return pa.array(cells, kind)


class _Features:
    """What the last linear layer is given: the embedding of an image."""

    def __init__(self, model: nn.Module) -> None:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ConfigError("--embeddings: the model has no linear layer, whose input they would be")
        self._found: Tensor | None = None
        linear[-1].register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._found = given[0]

    def take(self) -> np.ndarray:
        assert self._found is not None
        return self._found.float().flatten(1).cpu().numpy()
