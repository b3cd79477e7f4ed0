"""Data ready for training: stores of pixels, labels, class names and the transform.

Everything here is plain numpy, numbers and paths, so it travels to workers as it is.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from raytricks.config.schema import DataConfig
from raytricks.data.augmentation import Transform, central_squares
from raytricks.data.decode import DecodeSpec
from raytricks.data.decoding_store import DecodingStore, EncodedStore, FileStore, ShardStore
from raytricks.data.deep import ValueRange, measure_range
from raytricks.data.disk_store import DiskStore, default_cache_dir
from raytricks.data.jpeg import Decoder
from raytricks.data.resample import crop_and_resize
from raytricks.data.splits import ArrayImages, DatasetImages, DatasetSplits, FileImages, Images, ShardImages, Split
from raytricks.data.store import ImageStore, PaddedBatch, UniformStore
from raytricks.limits import available_memory_bytes

PUBLISHED_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of the channels, 0..1, that published weights were trained with."""
_CROPS = "random_resized_crop"
_STATISTICS_IMAGES = 4096
_RESIZE_CHUNK = 1024


@dataclass(frozen=True)
class LabelledImages:
    """One split: images in their store and (N,) int64 labels.

    Attributes:
        is_balanced: training draws all classes equally often.
    """

    images: ImageStore
    labels: np.ndarray
    origin: str
    is_balanced: bool = False

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """All splits of a data set with the transform that makes model input of them."""

    class_names: tuple[str, ...]
    channels: int
    transform: Transform
    train: LabelledImages
    evaluation: LabelledImages
    test: LabelledImages | None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def prepare_data(splits: DatasetSplits, config: DataConfig) -> PreparedData:
    """Decode what fits into memory once, measure the statistics, fix the transform.

    Args:
        config: resolved: image_size, channels, augmentation and shift_pixels are set.

    Raises:
        DataError: an image cannot be decoded; the message names it.
    """
    limit_bytes, value_range = cache_limit_bytes(config), _value_range(splits.train, config)
    opened: dict[str, LabelledImages] = {}
    for name in ("train", "evaluation", "test"):
        split = getattr(splits, name)
        if split is not None:
            spec = replace(decode_spec(config, for_training=name == "train"), value_range=value_range)
            store = open_store(split, spec, config, limit_bytes)
            limit_bytes -= 0 if isinstance(store, DecodingStore | DiskStore) else _stored_bytes(split, spec)
            is_balanced = config.balanced_sampling and name == "train"
            opened[name] = LabelledImages(store, split.labels, split.origin, is_balanced)
    mean, std = _normalization(opened["train"].images, config)
    return PreparedData(
        class_names=splits.class_names,
        channels=config.channels or 3,
        transform=_transform(config, mean, std, value_range),
        train=opened["train"],
        evaluation=opened["evaluation"],
        test=opened.get("test"),
    )


def decode_spec(config: DataConfig, *, for_training: bool) -> DecodeSpec:
    """Return the stored form of a split: squares of the largest side it is read with, or whole images to cut crops of.

    Crops are cut from the original pixels whether these are kept in memory or decoded each time, so
    the memory of a machine does not change what is trained on.
    """
    assert config.image_size is not None and config.channels is not None
    if config.augmentation == _CROPS:
        return DecodeSpec(None, square=False, channels=config.channels)
    if for_training:
        side = max(config.image_size, 0, *(config.train_size or ()))
    else:
        side = config.eval_size or config.image_size
    return DecodeSpec(side, square=True, channels=config.channels)


def cache_limit_bytes(config: DataConfig) -> int:
    """Return how much memory decoded images may take."""
    if config.cache_gib is not None:
        return int(config.cache_gib * 2**30)
    return available_memory_bytes() // 2


def open_store(split: Split, spec: DecodeSpec, config: DataConfig, limit_bytes: int) -> ImageStore:
    """Open a split as data.cache says: decoded in memory or on the disk, or left in its files or shards.

    Args:
        limit_bytes: of memory, for `auto`.
    """
    images = split.images
    if isinstance(images, ArrayImages):
        return _resized(images, spec)
    store = _encoded(images, spec, config.decoder)
    sizes = spec.output_sizes(images.heights, images.widths)
    if config.cache == "disk":
        folder = default_cache_dir() if config.cache_dir is None else Path(config.cache_dir).expanduser()
        return DiskStore(store, *sizes, folder)
    fits = _stored_bytes(split, spec) <= limit_bytes
    return store.in_memory(*sizes) if config.cache == "memory" or (config.cache == "auto" and fits) else store


def open_undecoded(images: Images, spec: DecodeSpec, decoder: Decoder) -> ImageStore:
    """Open images that are decoded each time they are read; arrays are in memory already."""
    return _resized(images, spec) if isinstance(images, ArrayImages) else _encoded(images, spec, decoder)


def _encoded(
    images: FileImages | ShardImages | DatasetImages, spec: DecodeSpec, decoder: Decoder
) -> FileStore | ShardStore | EncodedStore:
    if isinstance(images, DatasetImages):
        return EncodedStore(images, spec, decoder)
    if isinstance(images, FileImages):
        return FileStore(images.paths, spec, decoder, sizes=(images.heights, images.widths))
    return ShardStore(images, spec, decoder)


def _value_range(train: Split, config: DataConfig) -> ValueRange | None:
    """Measure what the training images of more than 8 bits a value are scaled by; None where there are none."""
    images = train.images
    if isinstance(images, ArrayImages) or not images.is_deep:
        return None
    store = _encoded(images, decode_spec(config, for_training=True), config.decoder)
    return measure_range(store.encoded, range(len(store)))


def _stored_bytes(split: Split, spec: DecodeSpec) -> int:
    heights, widths = spec.output_sizes(split.images.heights, split.images.widths)
    return int((heights * widths).sum()) * spec.channels


def _resized(images: ArrayImages, spec: DecodeSpec) -> UniformStore:
    """Bring arrays to the stored form: of the wanted channels, and square of the wanted side if there is one."""
    pixels = images.pixels
    if pixels.shape[1] != spec.channels:
        if pixels.shape[1] == 1:
            pixels = np.repeat(pixels, spec.channels, axis=1)
        else:  # the luma weights that Pillow's "L" uses (ITU-R 601-2)
            pixels = np.rint(np.tensordot([0.299, 0.587, 0.114], pixels, (0, 1)))[:, None].astype(np.uint8)
    height, width = pixels.shape[2:]
    if spec.short_side is None or (height, width) == (spec.short_side, spec.short_side):
        return UniformStore(np.ascontiguousarray(pixels))
    side = min(height, width)
    box = torch.tensor([[(height - side) // 2, (width - side) // 2, side, side]])
    chunks = [
        crop_and_resize(torch.from_numpy(chunk.copy()), box.expand(len(chunk), 4), spec.short_side)
        .round().clamp(0, 255).to(torch.uint8).numpy()
        for chunk in np.array_split(pixels, -(-len(pixels) // _RESIZE_CHUNK))
    ]  # fmt: skip
    return UniformStore(np.concatenate(chunks))


def _normalization(train: ImageStore, config: DataConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = config.channels or 3
    if config.normalization != "dataset":
        mean, std = PUBLISHED_STATISTICS[config.normalization]
        return (mean, std) if channels == 3 else ((sum(mean) / 3,), (sum(std) / 3,))
    return channel_statistics(train, channels, config.image_size if config.augmentation == _CROPS else None)


def channel_statistics(
    store: ImageStore, channels: int, crop_side: int | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation per channel, 0..1, on up to 4,096 evenly spread images.

    Args:
        crop_side: pixels that the central squares to measure are resized to; None: whole images as they are stored.
    """
    chosen = np.unique(np.linspace(0, len(store) - 1, min(len(store), _STATISTICS_IMAGES)).astype(np.int64))
    counts = np.zeros((channels, 256))  # how often each value occurs
    for part in np.array_split(chosen, -(-len(chosen) // 128)):
        canvas = store.read(part) if crop_side is None else _centres(store, part, crop_side)
        planes = canvas.pixels.transpose(0, 1).flatten(1)
        counts += np.stack([torch.bincount(plane, minlength=256).numpy() for plane in planes])
        counts[:, 0] -= planes.shape[1] - (canvas.heights * canvas.widths).sum()  # zeros beside the images
    values = np.arange(256) / 255
    frequencies = counts / counts.sum(axis=1, keepdims=True)
    mean = frequencies @ values
    variance = (frequencies * (values - mean[:, None]) ** 2).sum(axis=1)
    std = np.sqrt(np.maximum(variance, 1e-6))  # a constant channel must not divide by zero
    return tuple(float(round(m, 6)) for m in mean), tuple(float(round(s, 6)) for s in std)


def _centres(store: ImageStore, indices: np.ndarray, side: int) -> PaddedBatch:
    return store.read_crops(indices, central_squares(*store.sizes(indices)), side)


def with_augmentation(transform: Transform, config: DataConfig) -> Transform:
    """Return a transform with the shifts, crops and flips of a resolved config; its statistics stay."""
    return _transform(config, transform.mean, transform.std, transform.value_range)


def _transform(
    config: DataConfig, mean: tuple[float, ...], std: tuple[float, ...], value_range: ValueRange | None
) -> Transform:
    assert config.augmentation is not None and config.image_size is not None and config.shift_pixels is not None
    return Transform(
        kind=config.augmentation,
        image_size=config.eval_size or config.image_size,
        mean=mean,
        std=std,
        shift_pixels=config.shift_pixels,
        crop_scale=config.crop_scale,
        crop_aspect=config.crop_aspect,
        horizontal_flip=config.horizontal_flip and config.augmentation != "none",
        value_range=value_range,
    )
