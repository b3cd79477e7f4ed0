"""The settings that depend on the data: its statistics, its preset, the sides of its images, what is left open."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from raytricks.config.schema import DataConfig, ExperimentConfig, ModelConfig
from raytricks.data.splits import DatasetSplits
from raytricks.errors import ConfigError
from raytricks.parts.models import SMALL_RESNETS
from raytricks.tricks.progressive_resizing import training_side

LARGEST_SMALL_IMAGE = 64  # pixels; up to here the ImageNet stem would destroy the image


@dataclass(frozen=True)
class DatasetStats:
    """What the splits says, condensed.

    Attributes:
        native_side: median shorter side of the training images, pixels.
        is_uniform_square: all training images are squares of that side.
        class_counts: training images of each class; () where they are not known.
    """

    name: str
    num_train: int
    num_classes: int
    native_side: int
    is_uniform_square: bool
    is_grayscale: bool
    class_counts: tuple[int, ...] = ()

    @property
    def size_text(self) -> str:
        """Size for people: "28x28" or "about 375 px"."""
        side = self.native_side
        return f"{side}x{side}" if self.is_uniform_square else f"about {side} px"


def stats_of(splits: DatasetSplits) -> DatasetStats:
    """Condense a splits."""
    images = splits.train.images
    shorter = np.minimum(images.heights, images.widths)
    side = int(np.median(shorter))
    return DatasetStats(
        name=splits.name,
        num_train=len(splits.train),
        num_classes=splits.num_classes,
        native_side=side,
        is_uniform_square=bool((images.heights == side).all() and (images.widths == side).all()),
        is_grayscale=images.is_grayscale and (splits.evaluation.images.is_grayscale),
        class_counts=tuple(np.bincount(splits.train.labels, minlength=splits.num_classes).tolist()),
    )


_STEPS_WANTED = 30  # per epoch: fewer make noisy batch-norm statistics and a coarse schedule
_SMALL_SET = 20_000


def preset_for(stats: DatasetStats, epochs: int | None = None) -> dict[str, object]:
    """Choose epochs, batch and warmup by the size and number of the images.

    Args:
        epochs: those the user chose; the warmup is shortened to a tenth of them.

    Returns:
        Dotted config keys and values, of lower priority than any override.
    """
    batch = 256
    while batch > 16 and stats.num_train // batch < _STEPS_WANTED:
        batch //= 2
    is_small_image = stats.native_side <= LARGEST_SMALL_IMAGE
    if epochs is None:
        epochs = 120 if not is_small_image else 60 if stats.num_train < _SMALL_SET else 30
    return {
        "recipe.epochs": epochs,
        "recipe.global_batch_size": min(batch, stats.num_train),
        "tricks.warmup.epochs": min(5.0 if epochs >= 60 else 2.0, epochs / 10),
        "optimizer.weight_decay": 5e-4 if is_small_image else 1e-4,
    }


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


_SMALL_SIDE, _LARGE_SIDE = 64, 224
_SHIFT_PART = 8  # translations reach an eighth of the side, as 4 of 32 in the CIFAR recipes


def resolve_config(config: ExperimentConfig, stats: DatasetStats) -> tuple[ExperimentConfig, dict[str, str]]:
    """Return the config with nothing left open that data decides, and where each value is from.

    Returns:
        (config, sources): sources maps each dotted key that was filled in to its reason.
    """
    data = resolve_data(config.data, stats)
    model = resolve_model(config.model, data.image_size or _LARGE_SIDE)
    resolved = config.model_copy(update={"data": data, "model": model})
    sources = {
        f"{section}.{key}": f"data ({stats.size_text}, {stats.num_train:,} images)"
        for section in ("data", "model")
        for key, value in getattr(resolved, section)
        if getattr(getattr(config, section), key) is None and value is not None
    }
    return resolved, sources


def resolve_data(data: DataConfig, stats: DatasetStats) -> DataConfig:
    """Choose image size, channels and augmentation by the images' size; raises ConfigError for a shift beyond it."""
    size = data.image_size
    if size is None:
        is_small = stats.native_side <= LARGEST_SMALL_IMAGE
        native = stats.native_side if stats.is_uniform_square else _SMALL_SIDE
        size = max(native, 4) if is_small else _LARGE_SIDE
    if data.shift_pixels is not None and data.shift_pixels >= size and data.augmentation in (None, "shift"):
        raise ConfigError(
            f"data.shift_pixels must be less than the side of the images, which is {size}, got {data.shift_pixels}: "
            "images would be empty; leave it out or set data.augmentation=none"
        )
    augmentation = data.augmentation or ("shift" if size <= LARGEST_SMALL_IMAGE else "random_resized_crop")
    chosen: dict[str, Any] = {
        "image_size": size,
        "channels": data.channels or (1 if stats.is_grayscale else 3),
        "augmentation": augmentation,
        "shift_pixels": data.shift_pixels if data.shift_pixels is not None else size // _SHIFT_PART,
    }
    return data.model_copy(update=chosen)


def resolve_model(model: ModelConfig, image_size: int) -> ModelConfig:
    """Choose the network by the size of its input."""
    is_small = image_size <= LARGEST_SMALL_IMAGE
    name = model.name or ("resnet14" if image_size <= 32 else "resnet18" if is_small else "resnet50")
    if name.startswith(("torchvision:", "timm:")) or model.part is not None:  # they have neither stem nor width
        return model.model_copy(update={"name": name})
    chosen: dict[str, Any] = {
        "name": name,
        "stem": model.stem or ("small" if is_small else "imagenet"),
        "width": model.width or (16 if name in SMALL_RESNETS else 64),
    }
    return model.model_copy(update=chosen)
