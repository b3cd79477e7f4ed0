"""Decode one image to uint8 in its stored form, or say which image is bad and why.

`decode_bytes` is the one entrance: header by Pillow, pixels by `jpeg` (fast) or Pillow through
`pixel_modes`, then one resize for all of them, so the choice of decoder changes the speed and
not the pixels. Nothing is silently wrong: EXIF orientation is applied, 16 bits are scaled,
transparency is laid on white, a truncated file, an animation or an unknown pixel mode is an
error that names the image. One thing cannot be noticed: bytes that changed within the compressed
pixels of a JPEG, WebP, BMP or GIF, which have no checksum, decode to another picture; so does a
JPEG cut short and closed with an end marker. Of PNG the checksums are checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import io
import math

import numpy as np
from PIL import Image
import torch
from torch import Tensor

from raytricks.data.deep import ValueRange, scaled_values
from raytricks.data.image_formats import (
    ImageHeader,
    RefusedImage,
    header_of,
    is_deep,
    is_grayscale,
    naming,
    open_image,
    orientation_of,
    read_file,
    read_header,
    to_eight_bits,
)
from raytricks.data.jpeg import Decoder, decode_jpeg, reduction_for, require_decoder
from raytricks.data.png_chunks import check_pixel_checksums

__all__ = [
    "DecodeSpec",
    "Decoder",
    "ImageHeader",
    "decode_bytes",
    "decode_crop",
    "header_of",
    "read_file",
    "read_header",
    "require_decoder",
    "resize_crop",
    "resize_values",
    "upright",
]

_JPEG_FORMATS = ("JPEG", "MPO")  # MPO: a photograph with further pictures behind it
_LONGEST_ASPECT = 4  # a 2000 x 1 strip must not make a canvas of 2000 times the memory


@dataclass(frozen=True)
class DecodeSpec:
    """The stored form of an image.

    Attributes:
        short_side: pixels the shorter side is resized to; None: nothing is resized or cut.
        square: also cut the central square; else the whole image, at most 4:1, is kept.
        channels: 1 grayscale, 3 RGB.
        value_range: what becomes 0 and 255 of images of more than 8 bits a value; None: 0 and 65,535.
    """

    short_side: int | None
    square: bool
    channels: int
    value_range: ValueRange | None = None

    @property
    def longest_aspect(self) -> int:
        """Longer over shorter side, at most."""
        return 1 if self.square else _LONGEST_ASPECT

    def output_sizes(self, heights: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the (heights, widths) that images of these sizes are stored with."""
        if self.short_side is None:
            return heights, widths
        shorter, longest = np.minimum(heights, widths), self.short_side * self.longest_aspect
        scaled = [np.rint(side * (self.short_side / shorter)).astype(np.int64) for side in (heights, widths)]
        return np.minimum(scaled[0], longest), np.minimum(scaled[1], longest)


def decode_bytes(
    content: bytes | memoryview,
    spec: DecodeSpec,
    name: str,
    decoder: Decoder = "torchvision",
    expected_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decode one encoded image and bring it to the stored form.

    Args:
        content: a whole JPEG, PNG, WebP, BMP or single-frame GIF file.
        name: what errors call the image: its path, or shard and key.
        decoder: of JPEGs; they agree within rounding. `require_decoder` tells whether it is installed.
        expected_size: height and width that the image must have, after EXIF orientation; None: any.

    Returns:
        (C, h, w) uint8, C-contiguous, of the size that `spec.output_sizes` gives for the header's size.
        Grayscale of a colour JPEG is its stored luma plane, of other images Pillow's "L".

    Raises:
        DataError: one line, `name: what; remedy`: no image, truncated, more pixels than twice
            Pillow's MAX_IMAGE_PIXELS, several frames, a pixel mode that has no right 8-bit form, or another
            size than expected.
        ConfigError: the decoder is not installed.

    Source: the sizes and boxes of torchvision's `Resize` and `resized_crop`: whole pixels, so a
    centre that falls between two pixels is the one above or to the left.
    """
    require_decoder(decoder)
    with naming(name), open_image(io.BytesIO(content)) as image:
        orientation, size = orientation_of(image), image.size
        _require_size(image, orientation, expected_size)
        reduction = 1
        if spec.short_side is not None and image.format in _JPEG_FORMATS:
            reduction = reduction_for(size, spec.short_side)
        pixels = _decoded(image, content, spec.channels, reduction, decoder, spec.value_range)
        if spec.short_side is not None:
            pixels = _resized(pixels, size, reduction, spec)
    return _in_stored_form(pixels.numpy(), orientation, spec.channels)


def decode_crop(
    content: bytes | memoryview,
    box: Sequence[int],
    side: int,
    channels: int,
    name: str,
    decoder: Decoder = "torchvision",
    expected_size: tuple[int, int] | None = None,
    value_range: ValueRange | None = None,
) -> Tensor:
    """Decode one encoded image at its own size, cut a box out of it and resize that, antialiased.

    Args:
        box: top, left, height, width in pixels of the image as it is looked at (EXIF orientation undone).
        side: of the square result.
        expected_size: as of `decode_bytes`: that of the image which the box was drawn for.
        value_range: as of `DecodeSpec`.

    Returns:
        (C, side, side) uint8, as torchvision's `resized_crop` of the decoded image.

    Raises:
        DataError: as `decode_bytes`.
    """
    require_decoder(decoder)
    with naming(name), open_image(io.BytesIO(content)) as image:
        orientation = orientation_of(image)
        _require_size(image, orientation, expected_size)
        pixels = _decoded(image, content, channels, 1, decoder, value_range)
        if orientation != 1 or len(pixels) != channels:
            pixels = torch.from_numpy(_in_stored_form(pixels.numpy(), orientation, channels))
        return resize_crop(pixels, box, side)


def _require_size(image: Image.Image, orientation: int, expected: tuple[int, int] | None) -> None:
    width, height = reversed(image.size) if orientation >= 5 else image.size
    if expected is not None and (height, width) != expected:
        raise RefusedImage(
            f"is {height} x {width} pixels, was {expected[0]} x {expected[1]} when the data was scanned; "
            "leave the files alone while they are used, and start again"
        )


def resize_crop(pixels: Tensor, box: Sequence[int], side: int) -> Tensor:
    """Cut a box (top, left, height, width) out of (C, H, W) uint8 and resize it to a square, antialiased."""
    top, left, height, width = (int(number) for number in box)
    cut = pixels[:, top : top + height, left : left + width]
    if (height, width) == (side, side):
        return cut
    return torch.nn.functional.interpolate(_as_batch(cut), size=(side, side), mode="bilinear", antialias=True)[0]


def _as_batch(pixels: Tensor) -> Tensor:
    """Return (1, C, H, W) of (C, H, W).

    A batch stride that is larger than 1 x C x H x W needs makes torch 2.11-2.15 keep channels_last when
    it resizes: a third faster.
    """
    return pixels.as_strided((1, *pixels.shape), (pixels.untyped_storage().nbytes(), *pixels.stride()))


def resize_values(values: Tensor, spec: DecodeSpec) -> Tensor:
    """Resize (c, H, W) values of any kind, antialiased, to the sizes that `spec` gives."""
    return _resized(values, (values.shape[2], values.shape[1]), 1, spec)


def _decoded(
    image: Image.Image,
    content: bytes | memoryview,
    channels: int,
    reduction: int,
    decoder: Decoder,
    value_range: ValueRange | None,
) -> Tensor:
    """Return (c, H, W) uint8, c = 1 for grayscale images, else `channels`; sides divided by `reduction`."""
    mode = "L" if channels == 1 or is_grayscale(image) else "RGB"
    if image.format == "PNG":
        check_pixel_checksums(content)
    if value_range is not None and is_deep(image):
        return torch.from_numpy(scaled_values(image, content, value_range, channels))
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
    longest = min(size) / reduction * spec.longest_aspect
    factors = []
    for dim, (side, wanted_side) in enumerate(zip(reversed(size), wanted, strict=True), start=1):
        length = side / reduction
        kept = min(length, longest)
        pixels = pixels.narrow(dim, int((length - kept) / 2), math.ceil(kept))
        factors.append(wanted_side / kept * (1 + 1e-9))  # interpolate multiplies by it and rounds down
    batch = _as_batch(pixels)
    resized = torch.nn.functional.interpolate(batch, scale_factor=tuple(factors), mode="bilinear", antialias=True)[0]
    assert resized.shape[1:] == wanted
    return resized


def _in_stored_form(pixels: np.ndarray, orientation: int, channels: int) -> np.ndarray:
    """Undo the EXIF orientation of (c, h, w) pixels; c = 1 is repeated to `channels`."""
    pixels = upright(pixels, orientation)
    if len(pixels) != channels:
        pixels = np.broadcast_to(pixels, (channels, *pixels.shape[1:]))
    return np.ascontiguousarray(pixels)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return (c, h, w) pixels as they are looked at, by their EXIF orientation; a view."""
    if orientation >= 5:
        pixels = pixels.transpose(0, 2, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, :, ::-1]
    return pixels
