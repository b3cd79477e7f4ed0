"""The encoded images of a split, whatever they are kept in: named, read and sized one at a time."""

from contextlib import suppress
from dataclasses import dataclass, field
import hashlib
import io
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from raytricks.data.image_formats import read_file
from raytricks.data.shard_format import ShardReader
from raytricks.data.splits import DatasetImages, ShardImages


class Contents(Protocol):
    """The images of a split, in order. Threads may share one."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what the image is called in its source, such as "train/cat/1.jpg"."""
        ...

    def place(self, index: int) -> str:
        """Return where the image is, for messages."""
        ...

    def read(self, index: int) -> bytes | memoryview:
        """Return the encoded image; raises DataError naming it."""
        ...

    def num_bytes(self, index: int) -> int:
        """Return how many bytes the image takes where it is."""
        ...

    def state(self, index: int) -> str:
        """Return what changes when the image does, without reading it."""
        ...


@dataclass(frozen=True)
class FileContents:
    """Images in files; `names` are the paths relative to their source."""

    paths: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.names[index]

    def place(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> bytes:
        return read_file(Path(self.paths[index]))

    def num_bytes(self, index: int) -> int:
        with suppress(OSError):
            return Path(self.paths[index]).stat().st_size
        return 0

    def state(self, index: int) -> str:
        with suppress(OSError):
            status = Path(self.paths[index]).stat()
            return f"{status.st_size} {status.st_mtime_ns}"
        return "missing"


@dataclass(frozen=True)
class ArrayContents:
    """Decoded (N, C, H, W) uint8 images of a split, encoded as PNG when read."""

    pixels: np.ndarray
    split: str

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def place(self, index: int) -> str:
        return f"image {index} of {self.split}"

    def read(self, index: int) -> bytes:
        return encode_png(self.pixels[index])

    def num_bytes(self, index: int) -> int:
        return self.pixels[index].nbytes

    def state(self, index: int) -> str:
        return self.pixels[index].tobytes().hex()


@dataclass(frozen=True)
class EncodedContents:
    """Encoded images of a split that are in memory."""

    images: DatasetImages
    split: str

    def __len__(self) -> int:
        return len(self.images.encoded)

    def name(self, index: int) -> str:
        return f"{self.split}/{index}"

    def place(self, index: int) -> str:
        return f"{self.images.name}: image {index}"

    def read(self, index: int) -> bytes:
        return self.images.encoded[index]

    def num_bytes(self, index: int) -> int:
        return len(self.images.encoded[index])

    def state(self, index: int) -> str:
        return hashlib.sha256(self.images.encoded[index]).hexdigest()


@dataclass(frozen=True)
class ShardContents:
    """Images in packed shards; `names` are those in the source they were packed from."""

    images: ShardImages
    names: tuple[str, ...]
    reader: ShardReader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", ShardReader(self.images))

    def __len__(self) -> int:
        return len(self.images.rows)

    def name(self, index: int) -> str:
        return self.names[index]

    def place(self, index: int) -> str:
        return self.images.name(index)

    def read(self, index: int) -> bytes | memoryview:
        return self.reader.read(index)

    def num_bytes(self, index: int) -> int:
        return int(self.images.lengths[index])

    def state(self, index: int) -> str:
        return f"{self.images.digests[self.images.shards[index]]} {self.images.rows[index]}"


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode (C, H, W) uint8 of 1 or 3 channels without loss."""
    file = io.BytesIO()
    _image_of(pixels).save(file, "PNG")
    return file.getvalue()


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Encode (C, H, W) uint8 of 1 or 3 channels; the same bytes for the same pixels."""
    file = io.BytesIO()
    _image_of(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _image_of(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
