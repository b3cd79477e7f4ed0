"""What a cache of teacher's logits depends on, and what it takes on the disk."""

from dataclasses import asdict
import hashlib
import json
from typing import Any

import numpy as np

from raytricks.data.augmentation import ImageTricks, Transform
from raytricks.data.decoding_store import EncodedStore, FileStore, ShardStore
from raytricks.data.disk_store import DiskStore
from raytricks.data.store import ImageStore, RaggedStore, UniformStore
from raytricks.training.teacher import Teacher

FORMAT_VERSION = 2  # 1 had the logits of images of evaluation's side


def cache_bytes(num_images: int, num_classes: int, epochs: int) -> int:
    """Return what a run's logits take on the disk; `epochs` is 1 without random augmentation."""
    return num_images * num_classes * np.dtype(np.float32).itemsize * epochs


def is_static(transform: Transform, image_tricks: ImageTricks | None) -> bool:
    """Whether every epoch has the same images."""
    moves = transform.kind == "random_resized_crop" or (transform.kind == "shift" and transform.shift_pixels > 0)
    return not moves and not transform.horizontal_flip and image_tricks is None


def content_fingerprint(store: ImageStore) -> str:
    """Return the sha256 of the pixels; of images in files, of their paths, sizes, times and stored form."""
    if isinstance(store, FileStore | ShardStore | EncodedStore | DiskStore):
        return store.fingerprint()
    assert isinstance(store, UniformStore | RaggedStore)
    digest = hashlib.sha256()
    if isinstance(store, UniformStore):
        arrays = (store.pixels,)
    else:
        arrays = (store.offsets, store.heights, store.widths, store.buffer)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def describe(
    teacher: Teacher,
    images: ImageStore,
    transform: Transform,
    *,
    image_tricks: ImageTricks | None,
    augmentation_seed: int,
    side: int,
) -> dict[str, Any]:
    """Return all that the logits depend on, as plain values."""
    return {
        "format": FORMAT_VERSION,
        "teacher": teacher.digest,
        "teacher_preprocessing": asdict(teacher.preprocessing),
        "precision": teacher.precision,
        "transform": asdict(transform),
        "side": side,
        "image_tricks": None if image_tricks is None else image_tricks.describe(),
        "augmentation_seed": None if is_static(transform, image_tricks) else augmentation_seed,
        "images": content_fingerprint(images),
    }


def key_of(description: dict[str, Any]) -> str:
    """Return the 16 hexadecimal digits that name a cache."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
