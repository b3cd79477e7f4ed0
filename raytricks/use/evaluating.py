"""`raytricks.evaluate`: a model's figures on labelled images."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from raytricks.errors import ConfigError
from raytricks.inference.evaluation import Evaluation, compared, evaluation_of
from raytricks.inference.trained_model import TrainedModel
from raytricks.training.answering import answers_of, cross_entropy_of
from raytricks.training.kept_models import load
from raytricks.use.labelled import Labelled, SplitName, labelled_images, run_of

ModelPlace = str | Path
_Progress = Callable[[int, int], None]


def evaluate(
    model: ModelPlace,
    data: str | Path | None = None,
    *,
    against: ModelPlace | None = None,
    weights: str | int = "last",
    split: SplitName = "auto",
    flip: bool = False,
    eval_size: int | None = None,
    workers: int = 0,
    device: str | None = None,
    trust_code: bool = False,
    progress: _Progress = lambda done, total: None,
) -> Evaluation:
    """Measure a model on labelled images: every image once, the same figures on any number of workers.

    Args:
        model: as of `raytricks.load`.
        data: a folder of class folders, a table, shards or Parquet files, or digits or fashion_mnist. None: what the
            model's run evaluated. Classes are matched by name.
        against: another model of the same classes, to be compared on the same images.
        weights: as of `raytricks.load`, for a run.
        split: train, val, test or all. auto: what the run evaluated; of other data test, else val, else all.
        flip: answer by the mean over an image and its mirror image.
        eval_size: side that the model sees, pixels; None: as in training.
        workers: 0: in this process; else as many processes on Ray.
        progress: called with the images done and all images.

    Raises:
        CheckpointError: no such model.
        DataError: the data cannot be used, or shares no class with the model.
        ConfigError: models of different classes, or a size that the model cannot take.
    """
    own = _sized(load(model, weights=weights, device=device, trust_code=trust_code), eval_size)
    labelled = labelled_images(own, None if data is None else str(data), run_of(Path(model).expanduser()), split)
    settings = {"weights": str(weights), "flip": flip, "eval_size": own.preprocess.transform.image_size}
    settings["precision"] = own.execution.precision
    where = {"model": model, "weights": weights, "device": device, "trust_code": trust_code}
    first = _evaluated(own, labelled, where, settings, workers, eval_size, flip, progress)
    if against is None:
        return first
    other = _sized(load(against, device=device, trust_code=trust_code), eval_size)
    if other.class_names != own.class_names:
        raise ConfigError(f"{against} and {model} tell other classes apart, or in another order: they cannot be paired")
    images = labelled_images(other, None if data is None else str(data), run_of(Path(model).expanduser()), split)
    where |= {"model": against, "weights": "last"}
    return compared(first, _evaluated(other, images, where, settings, workers, eval_size, flip, progress))


def _sized(model: TrainedModel, eval_size: int | None) -> TrainedModel:
    if eval_size is None:
        return model
    if not 1 <= eval_size <= 4096:
        raise ConfigError(f"eval_size must be from 1 to 4096 pixels, got {eval_size}")
    transform = replace(model.preprocess.transform, image_size=eval_size)
    return replace(model, preprocess=replace(model.preprocess, transform=transform))


def _evaluated(
    model: TrainedModel,
    labelled: Labelled,
    where: dict,
    settings: dict,
    workers: int,
    eval_size: int | None,
    flip: bool,
    progress: _Progress,
) -> Evaluation:
    images = labelled.images
    if workers:
        from raytricks.cluster.answering import answers_on_ray  # the seam: ray

        loads = partial(sized_model, **where, eval_size=eval_size)
        use_gpu = model.device.type == "cuda"
        logits = answers_on_ray(loads, images, flip=flip, workers=workers, use_gpu=use_gpu)
    else:
        logits = _answers_here(model, labelled, flip, progress)
    return evaluation_of(
        logits,
        images.labels,
        model.class_names,
        temperature=model.temperature,
        cross_entropy=cross_entropy_of(logits, images.labels),
        model=str(where["model"]),
        data=labelled.description,
        image_names=labelled.names,
        notes=labelled.notes,
        settings=settings,
    )


def _answers_here(model: TrainedModel, labelled: Labelled, flip: bool, progress: _Progress) -> np.ndarray:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, len(labelled.images))

    return answers_of(model, labelled.images, flip=flip, progress=advance)


def sized_model(model: ModelPlace, eval_size: int | None, **options) -> TrainedModel:
    """Load a model whose images have another size."""
    return _sized(load(model, **options), eval_size)
