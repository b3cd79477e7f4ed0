"""A trained model: predicts for whatever a picture is given as, and drops into any torch code."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
import torch
from torch import Tensor

from raytricks.data.evaluation_input import EvaluationInput
from raytricks.data.store import shared_pool
from raytricks.data.threads import map_in_order
from raytricks.errors import ConfigError, DataError
from raytricks.inference.calibration import log_probabilities
from raytricks.inference.images import files_in
from raytricks.tricks.mixed_precision import DTYPES, Precision, autocast

Picture = str | os.PathLike | bytes | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class Execution:
    """How a model is evaluated; what its training did, so that its figures come out again.

    Attributes:
        precision: of the forward pass.
        channels_last: layout of the images.
        batch_size: images at once.
    """

    precision: Precision = "fp32"
    channels_last: bool = False
    batch_size: int = 128


@dataclass(frozen=True)
class Prediction:
    """The answer to one picture.

    Attributes:
        probabilities: (K,) float64, of the calibrated softmax; they sum to 1.
        logits: (K,) float32.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    class_names: tuple[str, ...] = field(repr=False)

    @property
    def index(self) -> int:
        """Number of the most probable class; of equals the lowest."""
        return int(self.logits.argmax())

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.class_names[self.index]

    @property
    def score(self) -> float:
        """Its probability."""
        return float(self.probabilities[self.index])

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the (name, probability) of the k most probable classes, or of all where there are fewer."""
        order = np.argsort(-self.logits, kind="stable")[:k]
        return [(self.class_names[i], float(self.probabilities[i])) for i in order]

    def __str__(self) -> str:
        return f"{self.label} ({self.score:.1%})"


@dataclass(frozen=True)
class TrainedModel:
    """A model with its preprocessing and class names, in evaluation mode.

    Attributes:
        model: (N, C, S, S) normalised images to (N, K) logits.
        preprocess: a picture (path, bytes, PIL, uint8 array or tensor) to its (C, S, S) model input.
        metrics: what its training measured.
        calibration: "temperature" and what it was fitted on; None: the softmax is not calibrated.
        execution: precision, layout and batch that it is run with.
        description: all that its file says of it.
    """

    model: torch.nn.Module
    class_names: tuple[str, ...]
    preprocess: EvaluationInput
    metrics: dict[str, float]
    calibration: Mapping[str, Any] | None = None
    execution: Execution = Execution()
    description: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def transform(self) -> EvaluationInput:
        """The same as `preprocess`, by torchvision's name."""
        return self.preprocess

    @property
    def channels(self) -> int:
        """1 grayscale, 3 RGB."""
        return self.preprocess.channels

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax; 1 where nothing was calibrated."""
        return float((self.calibration or {}).get("temperature", 1.0))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.model.parameters()), torch.zeros(0)).device

    def to(self, device: str | torch.device, dtype: str | torch.dtype | None = None) -> "TrainedModel":
        """Move the weights, and compute in another precision: fp32, fp16, bf16 or torch's name for one."""
        layout = torch.channels_last if self.execution.channels_last else torch.contiguous_format
        self.model.to(device=torch.device(device), memory_format=layout)  # type: ignore[call-overload]
        if dtype is None:
            return self
        return replace(self, execution=replace(self.execution, precision=precision_of(dtype)))

    def logits(self, inputs: Tensor) -> Tensor:
        """Answer (N, C, S, S) normalised images, as training's evaluation does: (N, K) float32 on the device."""
        layout = torch.channels_last if self.execution.channels_last else torch.contiguous_format
        inputs = inputs.to(self.device, non_blocking=True).contiguous(memory_format=layout)
        with torch.inference_mode(), autocast(_type_of(self.device), self.execution.precision):
            return self.model(inputs).float()

    def logits_of_squares(self, squares: Tensor) -> Tensor:
        """Answer (N, C, side, side) uint8 squares as `preprocess` stores them: (N, K) float32 on the device."""
        pixels = self.preprocess.transform.evaluation_pixels(squares).to(self.device, non_blocking=True)
        return self.logits(self.preprocess.transform.normalize(pixels))

    def probabilities(self, logits: Tensor | np.ndarray) -> np.ndarray:
        """Return (N, K) float64 of (N, K) logits: the softmax of logits / temperature."""
        values = logits.cpu().numpy() if isinstance(logits, Tensor) else logits
        return np.exp(log_probabilities(values, self.temperature))

    def predict(
        self, pictures: Picture | Iterable[Picture], *, batch_size: int | None = None
    ) -> Prediction | list[Prediction]:
        """Predict for one picture or many; the order is kept.

        Args:
            pictures: a path, bytes of an image file, a PIL image, an RGB array (H, W, 3), or a tensor (C, H, W); or a
                list of these, a folder, an array (N, H, W, 3) or a tensor (N, C, H, W). Arrays and tensors hold
                pixels: uint8, or floats in 0..1.
            batch_size: images at once; None: as training evaluated.

        Returns:
            A Prediction for one picture, else a list of them.

        Raises:
            DataError: a picture cannot be read; it is named. `raytricks predict` goes on past such pictures.
        """
        if _is_one(pictures):
            return next(iter(self._predicted([pictures], 1)))  # type: ignore[list-item]
        many: Any = files_in(pictures) if isinstance(pictures, str | os.PathLike) else pictures
        return list(self._predicted(many, batch_size or self.execution.batch_size))

    def _predicted(self, pictures: Iterable[Picture], batch_size: int) -> Iterator[Prediction]:
        squares = map_in_order(shared_pool(None), self._square, enumerate(pictures), 2 * batch_size)
        while batch := list(islice(squares, batch_size)):
            logits = self.logits_of_squares(torch.stack(batch)).cpu().numpy()
            for row, probabilities in zip(logits, self.probabilities(logits), strict=True):
                yield Prediction(probabilities, row, self.class_names)

    def _square(self, numbered: tuple[int, Picture]) -> Tensor:
        number, picture = numbered
        return self.preprocess.square(picture, f"picture {number}")


def precision_of(dtype: str | torch.dtype) -> Precision:
    """Return the precision that a name or a torch type means; raises ConfigError for another."""
    for name, kind in DTYPES.items():
        if dtype in (name, kind, str(kind).removeprefix("torch.")):
            return name
    raise ConfigError(f"dtype must be {', '.join(DTYPES)}, got {dtype!r}")


def _type_of(device: torch.device) -> Any:
    return "cuda" if device.type == "cuda" else "cpu"


def _is_one(pictures: Any) -> bool:
    if isinstance(pictures, str | os.PathLike):
        return not Path(pictures).expanduser().is_dir()
    if isinstance(pictures, np.ndarray | Tensor):
        if pictures.ndim not in (2, 3, 4):
            raise DataError(f"a picture has 2 or 3 dimensions, a batch 4; got {pictures.ndim}")
        return pictures.ndim < 4
    if isinstance(pictures, Sequence) and not isinstance(pictures, bytes | bytearray | memoryview):
        return False
    return isinstance(pictures, bytes | bytearray | memoryview | Image.Image)
