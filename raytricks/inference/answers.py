"""What a model answered to the evaluation images: kept beside it, so that nothing is computed twice for its report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
import torch
from torch import Tensor

from raytricks.errors import CheckpointError
from raytricks.inference.calibration import fit_temperature

ANSWERS_FILE = "answers.safetensors"
Answers = Mapping[str, Tensor]
"""(N, K) float32 logits in the order of the images: "val" of the model, "val_NAME" of its second sets of weights."""
_LABELS = "labels"
_MOST_BYTES = 2**30


def fits(num_images: int, num_classes: int) -> bool:
    """Whether the answers are small enough to be kept: below 1 GiB."""
    return 4 * num_images * num_classes <= _MOST_BYTES


def calibrated(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the calibration of a model by images that trained nothing, as its file holds it."""
    fitted = fit_temperature(logits, labels)
    return {
        "temperature": fitted.temperature,
        "cross_entropy_before": fitted.nll_before,
        "cross_entropy_after": fitted.nll_after,
        "num_images": fitted.num_images,
    }


def write_answers(path: Path, answers: Answers, labels: np.ndarray) -> None:
    """Write the answers and the (N,) labels; nothing where there are no answers."""
    if not answers:
        return
    tensors = {name: logits.detach().cpu().contiguous() for name, logits in answers.items()}
    temporary = path.with_name(f".tmp-{path.name}")
    save_file({**tensors, _LABELS: torch.from_numpy(np.ascontiguousarray(labels))}, temporary)
    temporary.replace(path)


def read_answers(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the (N, K) logits by name, and the (N,) labels; raises CheckpointError where there are none."""
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return found, found.pop(_LABELS)
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); `raytricks evaluate` makes them again") from None
