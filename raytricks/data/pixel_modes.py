"""Bring Pillow images of every supported mode to 8 bits, or refuse those without a right form."""

import numpy as np
from PIL import Image

from raytricks.data.png import raw_mode_of

_GRAY_MODES = ("1", "L", "LA")
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I")  # of PNG only, so I holds 16 bits too
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK")


class RefusedImage(Exception):
    """The image is intact but has no right 8-bit form; the message is `what; remedy`."""


def is_grayscale(image: Image.Image) -> bool:
    """Return whether the file stores one channel, transparency aside."""
    return image.mode in _GRAY_MODES + _SIXTEEN_BIT_MODES


def check_supported(image: Image.Image) -> None:
    """Raise RefusedImage for an image that `to_eight_bits` could only get wrong."""
    if min(image.size) < 1:
        raise RefusedImage(f"has no pixels ({image.width} x {image.height}); remove it or save it again")
    if image.mode not in _GRAY_MODES + _SIXTEEN_BIT_MODES + _COLOUR_MODES:
        raise RefusedImage(f"has the unsupported pixel mode {image.mode}; save it as 8-bit RGB")
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: the first is the photograph
        raise RefusedImage("is an animation; save the frame that you want as one image")
    if image.mode == "RGB" and "transparency" in image.info and ";16" in raw_mode_of(image):
        raise RefusedImage("is a 16-bit RGB image with a transparent colour; save it as 8-bit RGBA")


def to_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert to L or RGB; a grayscale image stays L.

    16-bit grayscale is scaled by 1/257 (Pillow alone would clip it); of 16-bit colours Pillow keeps
    the high byte, which is at most 1 too small, 2 where half transparent. CMYK is converted without
    a colour profile, transparency is laid on white.
    """
    mode = "L" if is_grayscale(image) else mode
    if image.mode in _SIXTEEN_BIT_MODES:
        return _scaled_to_eight_bits(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(mode)


def _scaled_to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    transparent = image.info.get("transparency")
    if transparent is not None:
        values[values == transparent] = 65535
    return Image.fromarray(np.rint(values / 257).clip(0, 255).astype(np.uint8))
