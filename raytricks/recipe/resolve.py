"""Fill in every setting that a config leaves to the data."""

from typing import Any

from raytricks.config.schema import SMALL_RESNETS, DataConfig, ExperimentConfig, ModelConfig
from raytricks.recipe.dataset_stats import LARGEST_SMALL_IMAGE, DatasetStats

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
    """Choose image size, channels and augmentation by the images' size."""
    size = data.image_size
    if size is None:
        is_small = stats.native_side <= LARGEST_SMALL_IMAGE
        native = stats.native_side if stats.is_uniform_square else _SMALL_SIDE
        size = max(native, 4) if is_small else _LARGE_SIDE
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
