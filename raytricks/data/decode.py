"""Decode one image file to uint8, or say which file is bad and why.

Pillow reads every format; nothing is silently wrong: EXIF orientation is applied, 16-bit
grayscale is scaled (Pillow would clip it), transparency is laid on white, a truncated file
is an error that names it.
"""

from dataclasses import dataclass
import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from raytricks.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I")
_LONGEST_ASPECT = 4  # a 2000 x 1 strip must not make a canvas of 2000 times the memory
_EXIF_ORIENTATION = 0x0112

Decoder = Literal["torchvision", "simplejpeg", "pil"]


@dataclass(frozen=True)
class DecodeSpec:
    """The stored form of an image.

    Attributes:
        short_side: pixels the shorter side is resized to.
        square: also cut the central square; else the whole image, at most 4:1, is kept.
        channels: 1 grayscale, 3 RGB.
    """

    short_side: int
    square: bool
    channels: int

    def output_sizes(self, heights: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (heights, widths) that images of these sizes are stored with."""
        longest = self.short_side * (1 if self.square else _LONGEST_ASPECT)
        shorter = np.minimum(heights, widths)
        scaled = [np.rint(side * (self.short_side / shorter)).astype(np.int64) for side in (heights, widths)]
        return np.minimum(scaled[0], longest), np.minimum(scaled[1], longest)


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image without decoding it; sizes after EXIF orientation."""

    height: int
    width: int
    is_grayscale: bool


def read_header(path: Path) -> ImageHeader:
    """Read size and mode of a file; raises DataError naming it."""
    with _naming_the_file(str(path)), path.open("rb") as stream:
        return _header(stream)


def header_of(content: bytes | memoryview, name: str) -> ImageHeader:
    """Read size and mode of an encoded image; raises DataError naming it."""
    with _naming_the_file(name):
        return _header(io.BytesIO(content))


def require_decoder(decoder: Decoder) -> None:
    """Raise ConfigError, naming the remedy, unless the decoder is installed."""


def decode_image(path: Path, spec: DecodeSpec, decoder: Decoder = "torchvision") -> np.ndarray:
    """Decode and resize one file to (C, h, w) uint8; raises DataError naming the file."""
    with _naming_the_file(str(path)):
        content = path.read_bytes()
    return decode_bytes(content, spec, str(path), decoder)


def decode_bytes(
    content: bytes | memoryview, spec: DecodeSpec, name: str, decoder: Decoder = "torchvision"
) -> np.ndarray:
    """Decode and resize one encoded image to (C, h, w) uint8; raises DataError naming it."""
    with _naming_the_file(name), Image.open(io.BytesIO(content)) as image:
        height, width = _oriented_size(image)
        if image.format == "JPEG":
            image.draft(None, (spec.short_side * 2, spec.short_side * 2))  # decodes at 1/2, 1/4, 1/8
        image = _to_mode(ImageOps.exif_transpose(image), "L" if spec.channels == 1 else "RGB")
        heights, widths = spec.output_sizes(np.array([height]), np.array([width]))
        image = _resize(image, int(heights[0]), int(widths[0]), spec)
        array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _header(stream) -> ImageHeader:
    with Image.open(stream) as image:
        height, width = _oriented_size(image)
        return ImageHeader(height, width, image.mode in ("L", "1", "LA", *_SIXTEEN_BIT_MODES))


def _oriented_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    quarter_turn = image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    return (width, height) if quarter_turn else (height, width)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(mode)


def _resize(image: Image.Image, height: int, width: int, spec: DecodeSpec) -> Image.Image:
    if (image.width, image.height) == (width, height):
        return image
    scale = min(image.height, image.width) / spec.short_side
    box_height, box_width = min(height * scale, image.height), min(width * scale, image.width)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)


class _naming_the_file:
    """Turn every decoding error into one line with the path in it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, _traceback) -> None:
        if isinstance(error, UnidentifiedImageError):
            raise DataError(f"{self.path}: is no image; remove it or save it again") from None
        if isinstance(error, Image.DecompressionBombError):
            raise DataError(f"{self.path}: {error}; shrink the image") from None
        if isinstance(error, Exception):  # damaged bytes make Pillow raise almost anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self.path}: cannot be decoded ({reason}); remove it or save it again") from None
