"""The recipe: what is trained, in numbers. The hardware has no say in it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from raytricks.config.schema import ExperimentConfig
from raytricks.errors import DataError
from raytricks.tricks.linear_scaling import peak_learning_rate
from raytricks.tricks.schedule import learning_rate


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Batch, steps and learning rate of a run; the same on any number of workers.

    Attributes:
        base_lr: at a global batch of 256.
        peak_lr: after scaling, reached at the end of the warmup.
        steps_per_epoch: whole global batches; the remainder of an epoch is not trained on.
    """

    num_train_images: int
    epochs: int
    global_batch_size: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    base_lr: float
    peak_lr: float
    decay_kind: Literal["cosine", "step", "constant"]
    decay_milestones: tuple[float, ...]
    decay_factor: float

    def lr(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`, counted from 1."""
        return learning_rate(
            step,
            peak_lr=self.peak_lr,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
            kind=self.decay_kind,
            milestones=self.decay_milestones,
            factor=self.decay_factor,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for run.json, with the lr at its three landmarks."""
        landmarks = {"first": 1, "peak": max(1, self.warmup_steps), "last": self.total_steps}
        return asdict(self) | {"lr_at": {name: self.lr(step) for name, step in landmarks.items()}}


def make_recipe(config: ExperimentConfig, num_train_images: int) -> Recipe:
    """Turn config and data size into steps and learning rates.

    Raises:
        DataError: fewer training images than one global batch.
    """
    batch = config.recipe.global_batch_size
    steps_per_epoch = num_train_images // batch
    if steps_per_epoch == 0:
        raise DataError(
            f"recipe.global_batch_size is {batch}, the data has {num_train_images} training images: no step "
            f"would run; use at most {num_train_images}"
        )
    decay = config.tricks.decay
    return Recipe(
        num_train_images=num_train_images,
        epochs=config.recipe.epochs,
        global_batch_size=batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=config.recipe.epochs * steps_per_epoch,
        warmup_steps=round(config.tricks.warmup.epochs * steps_per_epoch),
        base_lr=config.recipe.base_lr,
        peak_lr=peak_learning_rate(config.recipe.base_lr, batch, config.tricks.lr_scaling),
        decay_kind=decay.kind,
        decay_milestones=decay.milestones,
        decay_factor=decay.factor,
    )
