"""Any `torch.utils.data.Dataset` of (image, label): a PIL image, or uint8 as (C, H, W), (H, W, C) or (H, W)."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from raytricks.data.contents import encode_png
from raytricks.data.splits import ArrayImages, DatasetImages
from raytricks.errors import DataError


class MapDataset(Protocol):
    """What torch calls a map-style dataset."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def labels_of(dataset: MapDataset, name: str) -> np.ndarray:
    """Return the (N,) int64 labels: of `targets` or `labels` where the dataset has them, else of its items.

    Raises:
        DataError: a label is no whole number from 0 on.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{name}: a {type(dataset).__name__} has no length or no items; return a map-style Dataset")
    known = next((getattr(dataset, key) for key in ("targets", "labels") if hasattr(dataset, key)), None)
    found = known if known is not None else [_item(dataset, index, name)[1] for index in range(len(dataset))]
    labels = np.asarray(found)
    if labels.shape != (len(dataset),) or labels.dtype.kind not in "iu" or len(labels) == 0 or labels.min() < 0:
        raise DataError(f"{name}: labels must be whole numbers from 0 on, one an image; got {_shown(found)}")
    return labels.astype(np.int64)


def class_names_of(dataset: MapDataset, num_classes: int) -> tuple[str, ...]:
    """Return the names that the dataset has, else the numbers of its labels."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and len(names) >= num_classes:
        return tuple(str(name) for name in names)
    return tuple(str(label) for label in range(num_classes))


def dataset_images(dataset: MapDataset, name: str) -> ArrayImages | DatasetImages:
    """Read every item once, for its size; images of one size are kept as arrays, others stay in the dataset.

    Raises:
        DataError: an image is none, or holds floats.
    """
    pixels = [pixels_of(_item(dataset, index, name)[0], f"{name}: image {index}") for index in range(len(dataset))]
    if len({image.shape for image in pixels}) == 1:
        return ArrayImages(np.stack(pixels))
    heights, widths = (np.array([image.shape[axis] for image in pixels]) for axis in (1, 2))
    encoded = tuple(encode_png(image) for image in pixels)
    return DatasetImages(encoded, name, heights, widths, all(image.shape[0] == 1 for image in pixels))


def pixels_of(image: Any, name: str) -> np.ndarray:
    """Return an image as (C, H, W) uint8, C 1 or 3."""
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    elif hasattr(image, "cpu"):  # a tensor; torch is not imported for a data error
        image = image.cpu().numpy()
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(
            f"{name}: got a {kind}; return a PIL image or uint8 pixels, without ToTensor and Normalize: augmentation "
            "and normalisation are raytricks'"
        )
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3 and image.shape[0] not in (1, 3) and image.shape[2] in (1, 3):
        image = image.transpose(2, 0, 1)
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(f"{name}: must be (C, H, W), (H, W, C) or (H, W) with 1 or 3 channels, got {image.shape}")
    return np.ascontiguousarray(image)


def _item(dataset: MapDataset, index: int, name: str) -> tuple[Any, Any]:
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{name}: item {index} is a {type(item).__name__}, not (image, label)")
    return item[0], item[1]


def _shown(labels: Any) -> str:
    text = repr(list(labels[:3]) if hasattr(labels, "__getitem__") else labels)
    return text if len(text) <= 60 else f"{text[:57]}..."
