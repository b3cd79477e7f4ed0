"""Decode one image to uint8 in its stored form, or say which image is bad and why.

`decode_bytes` is the one entrance: header by Pillow, pixels by `jpeg` (fast) or Pillow through
`pixel_modes`, then one resize for all of them, so the choice of decoder changes the speed and
not the pixels. Nothing is silently wrong: EXIF orientation is applied, 16 bits are scaled,
transparency is laid on white, a truncated file, an animation or an unknown pixel mode is an
error that names the image. One thing cannot be noticed: bytes that changed within the compressed
pixels of a JPEG, WebP, BMP or GIF, which have no checksum, decode to another picture; so does a
JPEG cut short and closed with an end marker. Of PNG the checksums are checked.
"""

from dataclasses import dataclass
import io
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
import torch
from torch import Tensor

from raytricks.data.jpeg import Decoder, decode_jpeg, reduction_for, require_decoder
from raytricks.data.pixel_modes import RefusedImage, check_supported, is_grayscale, to_eight_bits
from raytricks.data.png import check_pixel_checksums, scale_colour_key
from raytricks.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "DecodeSpec",
    "Decoder",
    "ImageHeader",
    "decode_bytes",
    "decode_image",
    "header_of",
    "read_header",
    "require_decoder",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # by content; files are often misnamed
_JPEG_FORMATS = ("JPEG", "MPO")  # MPO: a photograph with further pictures behind it
_LONGEST_ASPECT = 4  # a 2000 x 1 strip must not make a canvas of 2000 times the memory
_EXIF_ORIENTATION = 0x0112


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

    @property
    def longest_side(self) -> int:
        return self.short_side * (1 if self.square else _LONGEST_ASPECT)

    def output_sizes(self, heights: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (heights, widths) that images of these sizes are stored with."""
        shorter = np.minimum(heights, widths)
        scaled = [np.rint(side * (self.short_side / shorter)).astype(np.int64) for side in (heights, widths)]
        return np.minimum(scaled[0], self.longest_side), np.minimum(scaled[1], self.longest_side)


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image without decoding it; sizes after EXIF orientation."""

    height: int
    width: int
    is_grayscale: bool


def read_header(path: Path) -> ImageHeader:
    """Read size and mode of a file; raises DataError naming it."""
    with _naming(str(path)), path.open("rb") as stream:
        return _header(stream)


def header_of(content: bytes | memoryview, name: str) -> ImageHeader:
    """Read size and mode of an encoded image; raises DataError naming it."""
    with _naming(name):
        return _header(io.BytesIO(content))


def decode_image(path: Path, spec: DecodeSpec, decoder: Decoder = "torchvision") -> np.ndarray:
    """Decode one file as `decode_bytes` does; raises DataError naming the file."""
    with _naming(str(path)):
        content = path.read_bytes()
    return decode_bytes(content, spec, str(path), decoder)


def decode_bytes(
    content: bytes | memoryview, spec: DecodeSpec, name: str, decoder: Decoder = "torchvision"
) -> np.ndarray:
    """Decode one encoded image and bring it to the stored form.

    Args:
        content: a whole JPEG, PNG, WebP, BMP or single-frame GIF file.
        name: what errors call the image: its path, or shard and key.
        decoder: of JPEGs; they agree within rounding. `require_decoder` tells whether it is installed.

    Returns:
        (C, h, w) uint8, C-contiguous, of the size that `spec.output_sizes` gives for the header's size.
        Grayscale of a colour JPEG is its stored luma plane, of other images Pillow's "L".

    Raises:
        DataError: one line, `name: what; remedy`: no image, truncated, more pixels than twice
            Pillow's MAX_IMAGE_PIXELS, several frames, or a pixel mode that has no right 8-bit form.
        ConfigError: the decoder is not installed.

    Source: the sizes and boxes of torchvision's `Resize` and `resized_crop`: whole pixels, so a
    centre that falls between two pixels is the one above or to the left.
    """
    require_decoder(decoder)
    with _naming(name), _opened(io.BytesIO(content)) as image:
        orientation, size = _orientation(image), image.size
        reduction = reduction_for(size, spec.short_side) if image.format in _JPEG_FORMATS else 1
        pixels = _decoded(image, content, spec.channels, reduction, decoder)
        pixels = _resized(pixels, size, reduction, spec)
    return _in_stored_form(pixels.numpy(), orientation, spec.channels)


def _header(stream: BinaryIO) -> ImageHeader:
    with _opened(stream) as image:
        width, height = image.size
        if _orientation(image) >= 5:  # a quarter turn
            height, width = width, height
        return ImageHeader(height, width, is_grayscale(image))


def _opened(stream: BinaryIO) -> Image.Image:
    image = Image.open(stream, formats=_FORMATS)
    check_supported(image)
    if image.format == "PNG":
        scale_colour_key(image)
    return image


def _orientation(image: Image.Image) -> int:
    if image.format == "JPEG" and not {"exif", "xmp"} & image.info.keys():
        return 1  # getexif would search for what is not there, for as long as all the rest of the header takes
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _decoded(
    image: Image.Image, content: bytes | memoryview, channels: int, reduction: int, decoder: Decoder
) -> Tensor:
    """Return (c, H, W) uint8, c = 1 for grayscale images, else `channels`; sides divided by `reduction`."""
    mode = "L" if channels == 1 or is_grayscale(image) else "RGB"
    if image.format == "PNG":
        check_pixel_checksums(content)
    if image.format in _JPEG_FORMATS:
        if image.mode in ("L", "RGB"):
            pixels = decode_jpeg(content, image.size, len(mode), reduction, decoder)
            if pixels is not None:
                return pixels
        image.draft(mode, (image.width // reduction, image.height // reduction))
    array = np.array(to_eight_bits(image, mode))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def _resized(pixels: Tensor, size: tuple[int, int], reduction: int, spec: DecodeSpec) -> Tensor:
    """Resize (c, H, W) pixels, antialiased, in uint8.

    Args:
        size: width and height before the decoder reduced them: divided by `reduction` they may be
            fractions of a pixel smaller than the pixels.
    """
    heights, widths = spec.output_sizes(np.array([size[1]]), np.array([size[0]]))
    wanted = (int(heights[0]), int(widths[0]))
    if pixels.shape[1:] == wanted:
        return pixels
    longest = min(size) / reduction * (spec.longest_side // spec.short_side)
    factors = []
    for dim, (side, wanted_side) in enumerate(zip(reversed(size), wanted, strict=True), start=1):
        length = side / reduction
        kept = min(length, longest)
        pixels = pixels.narrow(dim, int((length - kept) / 2), math.ceil(kept))
        factors.append(wanted_side / kept * (1 + 1e-9))  # interpolate multiplies by it and rounds down
    # A batch stride that is larger than 1 x C x H x W needs makes torch 2.11-2.15 keep channels_last: a third faster.
    batch = pixels.as_strided((1, *pixels.shape), (pixels.untyped_storage().nbytes(), *pixels.stride()))
    resized = torch.nn.functional.interpolate(batch, scale_factor=tuple(factors), mode="bilinear", antialias=True)[0]
    assert resized.shape[1:] == wanted
    return resized


def _in_stored_form(pixels: np.ndarray, orientation: int, channels: int) -> np.ndarray:
    """Undo the EXIF orientation of (c, h, w) pixels; c = 1 is repeated to `channels`."""
    if orientation >= 5:
        pixels = pixels.transpose(0, 2, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, :, ::-1]
    if len(pixels) != channels:
        pixels = np.broadcast_to(pixels, (channels, *pixels.shape[1:]))
    return np.ascontiguousarray(pixels)


class _naming:
    """Turn every decoding error into one line that starts with the image's name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, _traceback) -> None:
        if isinstance(error, RefusedImage):
            raise DataError(f"{self.name}: {error}") from None
        if isinstance(error, UnidentifiedImageError):
            raise DataError(
                f"{self.name}: is no image of a supported kind ({', '.join(_FORMATS)}); remove it or save it again"
            ) from None
        if isinstance(error, Image.DecompressionBombError):
            raise DataError(f"{self.name}: {error}; shrink the image") from None
        if isinstance(error, Exception):  # damaged bytes make Pillow raise almost anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self.name}: cannot be decoded ({reason}); remove it or save it again") from None
