"""A run whose settings change: its phases, each with the config and the recipe that hold there.

    phase      epochs                    steps made before it
    0            0 to changes[0].epoch     0
    k            changes[k-1].epoch to..   those of all phases before

The learning rate is a function of the epochs made, so a change of base_lr or batch goes on along
the curve of the changed recipe, from the part of the run that is done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from raytricks.config.changes import changed_config
from raytricks.config.schema import ExperimentConfig
from raytricks.errors import ConfigError, DataError
from raytricks.recipe.recipe import Recipe, make_recipe


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Epochs between two changes.

    Attributes:
        config: that holds there, without `changes`.
        recipe: of that config, counting steps and epochs over the whole run.
        end_epoch: the first epoch after it, counted from 0.
    """

    config: ExperimentConfig
    recipe: Recipe
    end_epoch: int

    @property
    def end_step(self) -> int:
        """Steps made when it ends."""
        return self.recipe.steps_before(self.end_epoch)


def config_at(config: ExperimentConfig, epoch: int) -> ExperimentConfig:
    """Return the config of an epoch, counted from 0: all changes up to it made, `changes` emptied.

    Raises:
        ConfigError: a change is not allowed or gives no valid config.
    """
    num_made = sum(change.epoch <= epoch for change in config.changes)
    return next(islice(_configs(config), num_made, None))


def make_phases(config: ExperimentConfig, num_train_images: int) -> tuple[Phase, ...]:
    """Cut a run at its changes; a run without any is one phase.

    Raises:
        ConfigError: see `config_at`.
        DataError: fewer training images than one global batch.
    """
    starts = [0, *(change.epoch for change in config.changes)]
    ends = [*starts[1:], config.recipe.epochs]
    phases: list[Phase] = []
    for start, end, current in zip(starts, ends, _configs(config), strict=True):
        first_step = phases[-1].end_step if phases else 0
        try:
            recipe = make_recipe(current, num_train_images, first_epoch=start, first_step=first_step)
        except DataError as error:
            raise DataError(f"changes[{len(phases) - 1}]: {error}" if phases else str(error)) from None
        phases.append(Phase(config=current, recipe=recipe, end_epoch=end))
    return tuple(phases)


def epoch_ends(phases: Sequence[Phase]) -> list[int]:
    """Return the steps made at the end of each epoch of a run."""
    return [
        phase.recipe.steps_before(epoch + 1)
        for phase in phases
        for epoch in range(phase.recipe.first_epoch, phase.end_epoch)
    ]


def _configs(config: ExperimentConfig) -> Iterator[ExperimentConfig]:
    """Yield the config without changes, with the first one, with the first two, and so on."""
    current = config.model_copy(update={"changes": ()})
    yield current
    for index, change in enumerate(config.changes):
        try:
            current = changed_config(current, change.values)
        except ConfigError as error:
            raise ConfigError([f"changes[{index}]: {line}" for line in error.problems]) from None
        yield current
