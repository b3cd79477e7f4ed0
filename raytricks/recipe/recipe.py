"""The recipe: what is trained, in numbers. The hardware has no say in it."""

from dataclasses import dataclass, field, fields
from typing import Any

from raytricks.config.schema import ExperimentConfig
from raytricks.errors import DataError
from raytricks.parts.hooks import LrPoint
from raytricks.recipe.chain import Call, Chain


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Batch, steps and learning rate of a run; the same on any number of workers.

    Where settings change in the course of a run, each of its phases has a recipe, which describes
    a whole run with its settings and says from where on it holds. Steps are counted over the whole
    run, from 1, epochs from 0.

    Attributes:
        base_lr: at a global batch of 256.
        decay_kind: name of the curve, for people.
        steps_per_epoch: whole global batches; the remainder of an epoch is not trained on.
        total_steps: of a run that has this batch from its start; warmup_steps likewise.
        first_epoch: the first epoch that it holds for.
        first_step: steps made before that epoch.
        lr_factors: of the parts that are on; base_lr is multiplied by each.
    """

    num_train_images: int
    epochs: int
    global_batch_size: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    base_lr: float
    decay_kind: str
    first_epoch: int = 0
    first_step: int = 0
    lr_factors: tuple[Call, ...] = field(default=(), repr=False, compare=False)

    def epoch_of(self, step: int) -> int:
        """Return the epoch that a step belongs to."""
        return self.first_epoch + (step - 1 - self.first_step) // self.steps_per_epoch

    def steps_before(self, epoch: int) -> int:
        """Return how many steps are made before an epoch."""
        return self.first_step + (epoch - self.first_epoch) * self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Return whether a step is the last one of its epoch."""
        return (step - self.first_step) % self.steps_per_epoch == 0

    def lr(self, step: int) -> float:
        """Return the learning rate of a step: this recipe's curve at the part of the epochs made by then."""
        return self._lr_on_curve(step - self.first_step + self.first_epoch * self.steps_per_epoch)

    @property
    def peak_lr(self) -> float:
        """The learning rate at the end of the warmup."""
        return self._lr_on_curve(max(1, self.warmup_steps))

    def _lr_on_curve(self, step: int) -> float:
        point = LrPoint(
            step=step,
            total_steps=self.total_steps,
            warmup_steps=self.warmup_steps,
            steps_per_epoch=self.steps_per_epoch,
            global_batch_size=self.global_batch_size,
        )
        lr = self.base_lr
        for factor in self.lr_factors:
            lr *= factor(point=point)
        return lr

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for run.json, with the lr at the three landmarks of the curve."""
        landmarks = {"first": 1, "peak": max(1, self.warmup_steps), "last": self.total_steps}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "lr_factors"}
        lr_at = {name: self._lr_on_curve(step) for name, step in landmarks.items()}
        return values | {"peak_lr": self.peak_lr, "lr_at": lr_at}


def make_recipe(
    config: ExperimentConfig, num_train_images: int, *, first_epoch: int = 0, first_step: int = 0
) -> Recipe:
    """Turn config and data size into steps and learning rates.

    Args:
        config: its `changes` are left to `raytricks.recipe.phases`.
        first_epoch: see `Recipe`.
        first_step: see `Recipe`.

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
    return Recipe(
        num_train_images=num_train_images,
        epochs=config.recipe.epochs,
        global_batch_size=batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=config.recipe.epochs * steps_per_epoch,
        warmup_steps=round(config.tricks.warmup.epochs * steps_per_epoch),
        base_lr=config.recipe.base_lr,
        decay_kind=config.tricks.decay.kind,
        first_epoch=first_epoch,
        first_step=first_step,
        lr_factors=Chain(config).calls("lr_factor"),
    )
