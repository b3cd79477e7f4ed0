"""Exact evaluation: every image once, counts summed over the workers."""

from collections.abc import Callable, Sequence
import math
import time

import torch
from torch import Tensor
import torch.nn.functional as F

from raytricks.data.augmentation import Transform
from raytricks.data.batches import evaluation_batches
from raytricks.data.prepared import LabelledImages
from raytricks.errors import InterruptedRun, NonFiniteError
from raytricks.recipe.chain import Metric
from raytricks.training.worker import Worker
from raytricks.tricks.mixed_precision import Precision, autocast

_TOP = 5
_UNITS = 2**32  # of a loss of 1; 2 billion images with a loss of 1 fit into 64 bits
_ASK_INTERVAL_S = 1.0  # a request may be a file on a network


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
    metrics: Sequence[Metric] = (),
    stop_requested: Callable[[], int] = lambda: 0,
    answers: list[Tensor] | None = None,
) -> dict[str, float]:
    """Measure top-1, top-5, plain cross-entropy and further metrics of a split.

    Shards without padding and adds up sums and counts, so the result does not depend on the
    number of workers. Collective.

    Args:
        answers: gets this worker's (n, K) float32 logits, a batch each.
        stop_requested: a number other than 0 ends the evaluation on all workers; asked about once a second.

    Returns:
        top1, top5 (parts of 1; top5 only with more than 5 classes), cross_entropy, num_images, lowest_recall (of
        the classes that have images) and lowest_recall_class, its index; and each metric under its name.

    Raises:
        InterruptedRun: a stop was requested.
        NonFiniteError: the loss is not finite.
    """
    nothing = torch.zeros(0, num_classes, device=worker.device)  # a worker may get no image of a small split
    counted = [_counts(metric, nothing, nothing[:, 0].long(), num_classes) for metric in metrics]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    sums = torch.zeros(4, dtype=torch.int64, device=worker.device)
    of_classes = torch.zeros(2, num_classes, dtype=torch.float64, device=worker.device)  # right answers, images
    is_poisoned = torch.zeros((), dtype=torch.bool, device=worker.device)
    was_training = model.training
    model.eval()
    asked, asked_s = 0, time.monotonic()
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
            ranks = ranks_of(logits, labels)
            is_right = ranks == 0
            if answers is not None:
                answers.append(logits)
            losses = F.cross_entropy(logits.double(), labels, reduction="none")
            is_poisoned |= ~losses.isfinite().all()
            loss = _exact(losses).sum()
            count = torch.full_like(loss, len(labels))
            sums += torch.stack([is_right.sum(), (ranks < _TOP).sum(), loss, count])
            of_classes.index_add_(1, labels, torch.stack([is_right, torch.ones_like(is_right)]).double())
            for index, metric in enumerate(metrics):
                counted[index] += _counts(metric, logits, labels, num_classes)
            if time.monotonic() - asked_s >= _ASK_INTERVAL_S:
                asked, asked_s = stop_requested(), time.monotonic()
                if asked:
                    break
    model.train(was_training)
    asked = worker.largest_over_workers(asked)
    if asked:
        raise InterruptedRun("stopped in the evaluation; all training steps are saved", asked)
    top1, top5, loss, count = worker.sum_over_workers(sums).tolist()
    loss = math.nan if worker.largest_over_workers(int(is_poisoned)) else loss / _UNITS
    assert count == len(data), f"evaluated {count} of {len(data)} images"
    if not math.isfinite(loss):
        raise NonFiniteError(
            f"the evaluation loss is {loss}: the weights or the batch-norm statistics are poisoned; the last "
            "checkpoint is kept; lower recipe.base_lr or set hardware.precision=fp32"
        )
    measured = {"top1": top1 / count, "cross_entropy": loss / count, "num_images": int(count)}
    right, images = worker.sum_over_workers(of_classes).cpu()
    recall = torch.where(images > 0, right / images, 2.0)
    measured |= {"lowest_recall": float(recall.min()), "lowest_recall_class": int(recall.argmin())}
    if num_classes > _TOP:
        measured["top5"] = top5 / count
    for metric, counts in zip(metrics, counted, strict=True):
        measured[metric.name] = float(metric.value(counts=worker.sum_over_workers(counts).cpu()))
    return measured


def ranks_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes come before the true one, (N,); of equal logits the lowest number comes first.

    Logits of half precision are often equal, and `topk` does not say which of them it takes.
    """
    of_label = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > of_label) | ((logits == of_label) & before)).sum(dim=1)


def exact_sum(logits: Tensor, labels: Tensor) -> float:
    """Return the sum of the cross-entropies of (N, K) logits and (N,) labels; the same in any order."""
    return int(_exact(F.cross_entropy(logits.double(), labels, reduction="none")).sum()) / _UNITS


def _exact(losses: Tensor) -> Tensor:
    """Return whole numbers of units, whose sum is the same in any order and over any number of workers."""
    return (losses * _UNITS).round().long()


def _counts(metric: Metric, logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    return metric.counts(logits=logits, labels=labels, num_classes=num_classes).double()
