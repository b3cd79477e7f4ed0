"""What Pillow leaves unchecked or unscaled in PNG files."""

import struct
import zlib

from PIL import Image, ImageFile

_SIGNATURE_BYTES = 8
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_KEY_SCALES = {"L;2": 255 // 3, "L;4": 255 // 15}


def check_pixel_checksums(content: bytes | memoryview) -> None:
    """Raise ValueError if bytes that make up the pixels changed since the PNG was written.

    Pillow compares no checksum of the compressed pixels. Chunks of text or profiles may be
    damaged; a missing end of the file is left for Pillow to judge.
    """
    content = memoryview(content)
    start = _SIGNATURE_BYTES
    while start + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        end = start + 8 + length
        kind = bytes(content[start + 4 : start + 8])
        if kind in _PIXEL_CHUNKS and end + 4 <= len(content):
            (stored,) = struct.unpack_from(">I", content, end)
            if stored != zlib.crc32(content[start + 4 : end]):
                raise ValueError(f"the checksum of its {kind.decode()} chunk does not match")
        start = end + 4


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
