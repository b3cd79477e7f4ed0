"""What an image file says of itself, read by Pillow without decoding it; errors that name the image."""

from dataclasses import dataclass
import io
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from raytricks.data.pixel_modes import RefusedImage, check_supported, is_grayscale
from raytricks.data.png import scale_colour_key
from raytricks.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # by content; files are often misnamed
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image without decoding it; sizes after EXIF orientation."""

    height: int
    width: int
    is_grayscale: bool


def read_header(path: Path) -> ImageHeader:
    """Read size and mode of a file; raises DataError naming it."""
    with naming(str(path)), path.open("rb") as stream:
        return _header(stream)


def header_of(content: bytes | memoryview, name: str) -> ImageHeader:
    """Read size and mode of an encoded image; raises DataError naming it."""
    with naming(name):
        return _header(io.BytesIO(content))


def _header(stream: BinaryIO) -> ImageHeader:
    with open_image(stream) as image:
        width, height = image.size
        if orientation_of(image) >= 5:  # a quarter turn
            height, width = width, height
        return ImageHeader(height, width, is_grayscale(image))


def open_image(stream: BinaryIO) -> Image.Image:
    """Open an image of a supported kind; to be used within `naming`."""
    image = Image.open(stream, formats=_FORMATS)
    check_supported(image)
    if image.format == "PNG":
        scale_colour_key(image)
    return image


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or a wrong one."""
    if image.format == "JPEG" and not {"exif", "xmp"} & image.info.keys():
        return 1  # getexif would search for what is not there, for as long as all the rest of the header takes
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


class naming:
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
