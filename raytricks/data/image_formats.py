"""What an image file says of itself, read by Pillow without decoding it; its pixel mode made 8 bits, or refused."""

from dataclasses import dataclass
import errno
from functools import cache
from importlib import import_module
from importlib.util import find_spec
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from raytricks.data.png_chunks import has_text_behind_pixels
from raytricks.errors import DataError, RaytricksError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
    ".avif",
)  # fmt: skip
"""Files with these names must be images; others are taken for images when they are."""
_FORMATS = (  # by content; files are often misnamed. Documents and what needs other programs are left out
    "JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF", "DIB", "PCX", "SGI", "SUN", "QOI",
    "ICO", "PSD", "TGA",
)  # fmt: skip
_FIRST_IS_THE_IMAGE = ("MPO", "HEIF", "PSD")  # what is behind it are previews, bursts or layers
_EXIF_ORIENTATION = 0x0112
_IS_DEEP = "raytricks: more than 8 bits a value"  # among what Pillow tells of an image


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image without decoding it; sizes after EXIF orientation.

    Attributes:
        is_deep: more than 8 bits a value.
    """

    height: int
    width: int
    is_grayscale: bool
    is_deep: bool = False


def read_file(path: Path) -> bytes:
    """Return a file's content; raises DataError naming it."""
    with naming(str(path)):
        return path.read_bytes()


def read_header(path: Path) -> ImageHeader:
    """Read size and mode of a file; raises DataError naming it."""
    with naming(str(path)), path.open("rb") as stream:
        return _header(stream)


def header_of(content: bytes | memoryview, name: str) -> ImageHeader:
    """Read size and mode of an encoded image; raises DataError naming it."""
    with naming(name):
        return _header(io.BytesIO(content))


def is_image_file(path: Path) -> bool:
    """Whether a file is an image that can be read, by its content; reads its header."""
    try:
        read_header(path)
    except UnreadableImage:
        return False
    return True


def _header(stream: BinaryIO) -> ImageHeader:
    with open_image(stream) as image:
        width, height = image.size
        if orientation_of(image) >= 5:  # a quarter turn
            height, width = width, height
        return ImageHeader(height, width, is_grayscale(image), is_deep(image))


@cache
def _formats() -> tuple[str, ...]:
    """Return what Pillow can read here: AVIF and HEIC need a decoder that is not always installed."""
    Image.init()
    if find_spec("pillow_heif") is not None:
        import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def open_image(stream: BinaryIO) -> Image.Image:
    """Open an image of a supported kind, and note what only a just opened one tells; to be used within `naming`."""
    image = Image.open(stream, formats=_formats())
    check_supported(image)
    if image.format == "PNG":
        scale_colour_key(image)
    image.info[_IS_DEEP] = image.mode in _DEEP_MODES or (image.format == "PNG" and ";16" in raw_mode_of(image))
    return image


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or a wrong one."""
    if image.format in ("TIFF", "HEIF"):
        return 1  # Pillow and pillow-heif turn these themselves
    if image.format == "JPEG" and not {"exif", "xmp"} & image.info.keys():
        return 1  # getexif would search for what is not there, for as long as all the rest of the header takes
    if isinstance(image, PngImageFile) and not has_text_behind_pixels(image):
        found = Image.Image.getexif(image)  # PngImageFile's would decode the image for what may be behind it
    else:
        found = image.getexif()
    return _known(found.get(_EXIF_ORIENTATION, 1))


def orientation_of_loaded(image: Image.Image) -> int:
    """Return the EXIF orientation that a decoded image still has to be turned by."""
    return 1 if image.format in ("TIFF", "HEIF") else _known(image.getexif().get(_EXIF_ORIENTATION, 1))


def _known(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1


class UnreadableImage(DataError):
    """What is wrong with one image; others may be read."""


_OF_THE_FILE = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip


class naming:
    """Turn every error of reading or decoding into one line that starts with the image's name.

    Raises:
        UnreadableImage: the image is to blame.
        RaytricksError: the machine is: no memory, too many open files, a failing disk. To leave the image out would
            lose a sound one.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, _traceback) -> None:
        if isinstance(error, Exception) and not isinstance(error, RaytricksError):
            raise _named(self.name, error) from None


def _named(name: str, error: Exception) -> RaytricksError:
    if isinstance(error, RefusedImage):
        return UnreadableImage(f"{name}: {error}")
    if isinstance(error, UnidentifiedImageError):
        return UnreadableImage(
            f"{name}: is no image of a supported kind ({', '.join(_formats())}); remove it or save it again"
        )
    if isinstance(error, Image.DecompressionBombError):
        return UnreadableImage(f"{name}: {error}; shrink the image")
    if isinstance(error, OSError) and error.errno in _OF_THE_FILE:
        return UnreadableImage(f"{name}: cannot be read ({error.strerror}); remove or restore it")
    if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
        return RaytricksError(
            f"{name}: cannot be read ({error.strerror}): the machine or its storage fails, the image may be sound; "
            "mend that (`ulimit -n` for too many open files) and run the same command again"
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "allocate memory" in reason:  # torch raises a RuntimeError
        return RaytricksError(f"{name}: there is no memory left to decode it; free some or use fewer workers")
    # damaged bytes make Pillow raise almost anything
    return UnreadableImage(f"{name}: cannot be decoded ({reason}); remove it or save it again")


_GRAY_MODES = ("1", "L", "LA")
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # I of PNG and PPM holds 16 bits too
FULL_RANGE = (0.0, 65535.0)
"""Of values of 16 bits."""
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")


class RefusedImage(Exception):
    """The image is intact but has no right 8-bit form; the message is `what; remedy`."""


def is_grayscale(image: Image.Image) -> bool:
    """Return whether the file stores one channel, transparency aside."""
    return image.mode in _GRAY_MODES + _DEEP_MODES


def is_deep(image: Image.Image) -> bool:
    """Return whether an image of `open_image` has more than 8 bits a value that can be read."""
    return image.info[_IS_DEEP]


def check_supported(image: Image.Image) -> None:
    """Raise RefusedImage for an image that `to_eight_bits` could only get wrong."""
    if min(image.size) < 1:
        raise RefusedImage(f"has no pixels ({image.width} x {image.height}); remove it or save it again")
    if image.mode not in _GRAY_MODES + _DEEP_MODES + _COLOUR_MODES:
        raise RefusedImage(f"has the unsupported pixel mode {image.mode}; save it as 8-bit RGB")
    if image.format not in _FIRST_IS_THE_IMAGE and getattr(image, "is_animated", False):
        what = f"holds {getattr(image, 'n_frames', 2)} pages" if image.format == "TIFF" else "is an animation"
        raise RefusedImage(f"{what}; save the frame that you want as one image")
    if image.mode == "RGB" and "transparency" in image.info and ";16" in raw_mode_of(image):
        raise RefusedImage("is a 16-bit RGB image with a transparent colour; save it as 8-bit RGBA")


def to_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert to L or RGB; a grayscale image stays L.

    16-bit grayscale is scaled by 1/257 (Pillow alone would clip it), values beyond by their own range; of 16-bit
    colours Pillow keeps the high byte, which is at most 1 too small, 2 where half transparent. (What is trained on is
    scaled by `raytricks.data.deep`.) CMYK is converted without a colour profile, transparency is laid on white.
    """
    mode = "L" if is_grayscale(image) else mode
    if image.mode in _DEEP_MODES:
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
    if image.mode == "F" or values.min() < FULL_RANGE[0] or values.max() > FULL_RANGE[1]:
        if not np.isfinite(values).all():
            raise RefusedImage("holds values that are no numbers; save it without them")
        values = (values - values.min()) * (FULL_RANGE[1] / max(np.ptp(values), 1e-9))
    return Image.fromarray(np.rint(values / 257).clip(0, 255).astype(np.uint8))


_KEY_SCALES = {"L;2": 255 // 3, "L;4": 255 // 15}


def scale_colour_key(image: Image.Image) -> None:
    """Bring the transparent gray of a just opened PNG of 2 or 4 bits to the 8 bits of its pixels.

    Pillow widens the pixels and leaves the key as the file has it, so nothing or the wrong gray
    would be transparent.
    """
    key = image.info.get("transparency")
    scale = _KEY_SCALES.get(raw_mode_of(image))
    if isinstance(key, int) and scale is not None:
        image.info["transparency"] = key * scale


def raw_mode_of(image: Image.Image) -> str:
    """Return Pillow's name for the stored layout of a just opened image, such as RGB;16B."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return image.mode
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)
