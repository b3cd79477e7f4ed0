"""The chunks of a PNG file, looked at without decoding its pixels."""

from collections.abc import Iterator
import struct
import zlib

from PIL.PngImagePlugin import PngImageFile

_SIGNATURE_BYTES = 8
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_TEXT_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


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


def has_text_behind_pixels(image: PngImageFile) -> bool:
    """Whether EXIF data or text, which may hold some, stand where Pillow finds them only by decoding the image.

    Args:
        image: just opened; what stands before its pixels is in `info` already.
    """
    stream = image.fp
    assert stream is not None, "the image is open"
    place = stream.tell()
    kinds = list(_kinds(stream))
    stream.seek(place)
    first = kinds.index(b"IDAT") if b"IDAT" in kinds else len(kinds)
    return any(kind in _TEXT_CHUNKS for kind in kinds[first:])


def _kinds(stream) -> Iterator[bytes]:
    start = _SIGNATURE_BYTES
    while True:
        stream.seek(start)
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        yield head[4:]
        start += 12 + int.from_bytes(head[:4], "big")
