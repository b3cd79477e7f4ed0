"""What a trained model answers to labelled images, summed up as training's own evaluation does."""

from collections.abc import Callable

import numpy as np
import torch

from raytricks.data.batches import evaluation_batches
from raytricks.data.prepared import LabelledImages
from raytricks.inference.trained_model import TrainedModel
from raytricks.training.evaluation import exact_sum


def answers_of(
    trained: TrainedModel,
    data: LabelledImages,
    *,
    flip: bool = False,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int], None] = lambda num_images: None,
) -> np.ndarray:
    """Return the (n, K) float32 logits of one of `world_size` parts of a split, in its order.

    Args:
        flip: the mean of the logits of an image and of its mirror image.
        progress: called with how many more images were answered.
    """
    found = [np.empty((0, trained.num_classes), np.float32)]
    batches = evaluation_batches(
        data,
        trained.preprocess.transform,
        rank=rank,
        world_size=world_size,
        batch_size=min(max(1, len(data)), trained.execution.batch_size),
        device=trained.device,
    )
    for inputs, _ in batches:
        logits = trained.logits(inputs)
        if flip:
            logits = (logits + trained.logits(inputs.flip(3))) / 2
        found.append(logits.cpu().numpy())
        progress(len(found[-1]))
    return np.concatenate(found)


def cross_entropy_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy, to the last digit what training's evaluation gives for these logits."""
    return exact_sum(torch.from_numpy(logits), torch.from_numpy(labels)) / len(labels)
