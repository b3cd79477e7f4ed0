"""Feed a worker its part of each global batch, reading ahead where reading is slow."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raytricks.data.augmentation import ImageTricks, Transform, central_squares, to_device
from raytricks.data.order import balanced_order, epoch_order, even_share, micro_batches, with_left_neighbour
from raytricks.data.prepared import LabelledImages
from raytricks.data.store import ImageStore, PaddedBatch, UniformStore

_READ_AHEAD = 2  # micro-batches decoded before they are needed; bounds the memory


@dataclass(frozen=True)
class TrainBatch:
    """One micro-batch on its device.

    Attributes:
        inputs: (n, C, S, S) float32, augmented and normalised; (n + 1, ...) with the left
            neighbour first when `with_neighbours`.
        labels: (n,) or (n + 1,) int64.
        samples: (n,) or (n + 1,) global sample numbers.
        is_last_of_step: an optimizer step follows.
    """

    inputs: Tensor
    labels: Tensor
    samples: np.ndarray
    is_last_of_step: bool


@dataclass(frozen=True, kw_only=True)
class TrainBatches:
    """The training batches of one worker.

    Attributes:
        images_per_device: largest micro-batch, or None.
        with_neighbours: each micro-batch also brings its left neighbour, for mixup.
        augmentation_seed: of each image's augmentation; None: `seed`, which also gives the order.
        image_tricks: what else changes the images, or None.
        sides: of the images of each epoch, pixels; None: the transform's in all of them.
    """

    data: LabelledImages
    transform: Transform
    global_batch_size: int
    rank: int
    world_size: int
    images_per_device: int | None
    seed: int
    device: torch.device
    with_neighbours: bool
    augmentation_seed: int | None = None
    image_tricks: ImageTricks | None = None
    sides: tuple[int, ...] | None = None

    def side(self, epoch: int) -> int:
        """Return the side of an epoch's images, pixels."""
        return self.transform.image_size if self.sides is None else self.sides[epoch]

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in the data; the remainder waits for another epoch's order."""
        return len(self.data) // self.global_batch_size

    def samples(self, epoch: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield (global sample numbers, is_last_of_step) of this worker's micro-batches."""
        if self.data.is_balanced:
            order = balanced_order(self.data.labels, self.seed, epoch)
        else:
            order = epoch_order(len(self.data), self.seed, epoch)
        start, stop = even_share(self.global_batch_size, self.rank, self.world_size)
        pieces = micro_batches(start, stop, self.images_per_device)
        for step in range(first_step, self.steps_per_epoch):
            batch = order[step * self.global_batch_size : (step + 1) * self.global_batch_size]
            for a, b in pieces:
                chosen = with_left_neighbour(batch, a, b) if self.with_neighbours else batch[a:b]
                yield chosen, b == stop

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[TrainBatch]:
        """Yield this worker's micro-batches of an epoch from step `first_step` on."""
        plan = self.samples(epoch, first_step)
        seed = self.seed if self.augmentation_seed is None else self.augmentation_seed
        device, tricks, side = self.device, self.image_tricks, self.side(epoch)
        read = training_reader(self.data.images, self.transform, seed, epoch, side)
        for canvas, (samples, is_last) in read_ahead(self.data.images, plan, read):
            inputs = self.transform.train(canvas, samples, seed, epoch, device, tricks, side)
            labels = to_device(torch.from_numpy(self.data.labels[samples]), device)
            yield TrainBatch(inputs, labels, samples, is_last)


_EVALUATION_PIXELS = 2**22
_EVALUATION_IMAGES = (128, 512)


def evaluation_batch_size(side: int) -> int:
    """Return how many images of a side are evaluated at once, wherever memory allows.

    It depends on nothing but the images, so that the figures do not change with the number of workers: what a layer
    answers to an image differs in its last bits with the batch that it comes in.
    """
    return min(max(_EVALUATION_PIXELS // side**2, _EVALUATION_IMAGES[0]), _EVALUATION_IMAGES[1])


def evaluation_share(total: int, side: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return [start, stop) of a worker's samples: whole batches, the same ones for any number of workers.

    Args:
        side: of the images, pixels.
    """
    batch_size = evaluation_batch_size(side)
    first, last = even_share(-(-total // batch_size), rank, world_size)
    return min(first * batch_size, total), min(last * batch_size, total)


def evaluation_batches(
    data: LabelledImages,
    transform: Transform,
    *,
    rank: int,
    world_size: int,
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs, labels) of this worker's part of a split: every image once, none padded."""
    start, stop = evaluation_share(len(data), transform.image_size, rank, world_size)
    plan = ((np.arange(a, min(a + batch_size, stop)), True) for a in range(start, stop, batch_size))
    for canvas, (samples, _) in read_ahead(data.images, plan, evaluation_reader(data.images, transform)):
        labels = to_device(torch.from_numpy(data.labels[samples]), device)
        yield transform.evaluate(canvas, device), labels


Reader = Callable[[np.ndarray], PaddedBatch]
Planned = tuple[np.ndarray, bool]


def training_reader(store: ImageStore, transform: Transform, seed: int, epoch: int, side: int | None = None) -> Reader:
    """Return what reads the training images of sample numbers: whole, or cropped as the epoch draws it."""
    if not transform.crops:
        return store.read

    def read(samples: np.ndarray) -> PaddedBatch:
        boxes = transform.train_boxes(*store.sizes(samples), samples, seed, epoch)
        return store.read_crops(samples, boxes, side or transform.image_size)

    return read


def evaluation_reader(store: ImageStore, transform: Transform) -> Reader:
    """Return what reads evaluation images: as they are stored, or their central square, resized."""
    if not transform.crops:
        return store.read

    def read(samples: np.ndarray) -> PaddedBatch:
        return store.read_crops(samples, central_squares(*store.sizes(samples)), transform.evaluation_side)

    return read


def read_ahead(store: ImageStore, plan: Iterator[Planned], read: Reader) -> Iterator[tuple[PaddedBatch, Planned]]:
    """Read each planned batch; where that takes time, in the background while the last one is used."""
    if isinstance(store, UniformStore) and read == store.read:  # one copy: a thread would take longer
        for item in plan:
            yield read(item[0]), item
        return
    reader = ThreadPoolExecutor(1)
    pending: deque = deque()
    try:
        for item in plan:
            pending.append((reader.submit(read, item[0]), item))
            if len(pending) > _READ_AHEAD:
                future, ready = pending.popleft()
                yield future.result(), ready
        while pending:
            future, ready = pending.popleft()
            yield future.result(), ready
    finally:
        reader.shutdown(cancel_futures=True)  # on an error or an early end, what was read ahead is not needed
