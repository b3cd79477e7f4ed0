"""Exact evaluation: every image once, counts summed over the workers."""

import math

import torch
import torch.nn.functional as F

from raytricks.data.augmentation import Transform
from raytricks.data.batches import evaluation_batches
from raytricks.data.prepared import LabelledImages
from raytricks.errors import NonFiniteError
from raytricks.training.worker import Worker
from raytricks.tricks.mixed_precision import Precision, autocast

_TOP = 5


def evaluate(
    model: torch.nn.Module,
    data: LabelledImages,
    transform: Transform,
    *,
    num_classes: int,
    worker: Worker,
    batch_size: int,
    precision: Precision,
    channels_last: bool,
) -> dict[str, float]:
    """Measure top-1, top-5 and plain cross-entropy of a split.

    Shards without padding and adds up sums and counts, so the result does not depend on the
    number of workers. Collective.

    Returns:
        top1, top5 (parts of 1; top5 only with more than 5 classes), cross_entropy, num_images.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    sums = torch.zeros(4, dtype=torch.float64, device=worker.device)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for inputs, labels in evaluation_batches(
            data,
            transform,
            rank=worker.rank,
            world_size=worker.world_size,
            batch_size=batch_size,
            device=worker.device,
        ):
            with autocast(worker.device_type, precision):
                logits = model(inputs.contiguous(memory_format=layout))
            logits = logits.float()
            best = logits.topk(min(_TOP, num_classes), dim=1).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            count = torch.full_like(loss, len(labels))
            sums += torch.stack([best[:, 0].sum(), best.any(dim=1).sum(), loss, count])
    model.train(was_training)
    top1, top5, loss, count = worker.sum_over_workers(sums).tolist()
    assert count == len(data), f"evaluated {count} of {len(data)} images"
    if not math.isfinite(loss):
        raise NonFiniteError(
            f"the evaluation loss is {loss}: the weights or the batch-norm statistics are poisoned; the last "
            "checkpoint is kept; lower recipe.base_lr or set hardware.precision=fp32"
        )
    metrics = {"top1": top1 / count, "cross_entropy": loss / count, "num_images": int(count)}
    if num_classes > _TOP:
        metrics["top5"] = top5 / count
    return metrics
