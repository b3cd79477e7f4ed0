"""The side of the images in every epoch of a run."""

from raytricks.config.schema import ExperimentConfig
from raytricks.tricks.progressive_resizing import training_side


def training_sides(config: ExperimentConfig) -> tuple[int, ...]:
    """Return the side of the training images of each epoch of a resolved config, pixels."""
    data, num_epochs = config.data, config.recipe.epochs
    assert data.image_size is not None
    if data.train_size is None:
        return (data.image_size,) * num_epochs
    first, last = data.train_size
    return tuple(
        training_side(epoch, num_epochs=num_epochs, first=first, last=last, ramp=data.train_size_ramp)
        for epoch in range(num_epochs)
    )


def input_sides(config: ExperimentConfig) -> list[int]:
    """Return every side that the model meets, in training and evaluation, rising."""
    assert config.data.image_size is not None
    return sorted({*training_sides(config), config.data.eval_size or config.data.image_size})
