"""What becomes of one image when it is packed."""

from dataclasses import dataclass

from raytricks.data.contents import Contents, encode_jpeg, encode_png
from raytricks.data.decode import DecodeSpec, decode_bytes, header_of

JPEG_QUALITY = 90
_LARGEST_LOSSLESS_SIDE = 64  # JPEG's 8x8 blocks show in smaller images, and PNG takes little there


@dataclass(frozen=True)
class PackedImage:
    """An encoded image as it goes into a shard; sizes after EXIF orientation, pixels."""

    content: bytes
    height: int
    width: int
    is_grayscale: bool
    is_resized: bool


def pack_image(contents: Contents, index: int, short_side: int) -> PackedImage:
    """Make an image smaller, or keep its bytes; either way it has been decoded, so it is sound.

    The resized pixels are those that training with this `short_side` would decode from the
    original (antialiased, at most 4:1), but for the loss of JPEG at quality 90.

    Args:
        short_side: images with a longer one are resized to it; 0: none is.

    Raises:
        DataError: the image cannot be read or decoded; names it.
    """
    content, place = contents.read(index), contents.place(index)
    header = header_of(content, place)
    shorter = min(header.height, header.width)
    is_resized = 0 < short_side < shorter
    spec = DecodeSpec(short_side if is_resized else shorter, square=False, channels=1 if header.is_grayscale else 3)
    pixels = decode_bytes(content, spec, place)
    if not is_resized:
        return PackedImage(bytes(content), header.height, header.width, header.is_grayscale, False)
    is_lossless = short_side <= _LARGEST_LOSSLESS_SIDE or not _is_lossy(bytes(content[:64]))
    smaller = encode_png(pixels) if is_lossless else encode_jpeg(pixels, JPEG_QUALITY)
    return PackedImage(smaller, pixels.shape[1], pixels.shape[2], header.is_grayscale, True)


def _is_lossy(start: bytes) -> bool:
    """Whether a file that begins so is JPEG, or WebP with its lossy coding."""
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return start[:2] == b"\xff\xd8" or (is_webp and b"VP8L" not in start)
