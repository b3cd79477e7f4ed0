"""PNG of every depth: expected pixels are computed from the numbers that the test writes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from raytricks.data.decode import DecodeSpec, decode_bytes, header_of
from raytricks.errors import DataError

RGB = DecodeSpec(6, square=False, channels=3)
GRAY = DecodeSpec(6, square=False, channels=1)
HEIGHT, WIDTH = 6, 8
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels: gray, gray + alpha, RGB, RGBA


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, bits: int, key: tuple[int, ...] = ()) -> bytes:
    """Write (H, W, c) samples as a PNG, with a transparent colour."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bits, COLOUR_TYPES[channels], 0, 0, 0)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        digits = (samples.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
        rows = [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in digits]
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    transparency = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparency + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def random_samples(bits: int, channels: int) -> np.ndarray:
    return np.random.default_rng(bits + channels).integers(0, 2**bits, (HEIGHT, WIDTH, channels))


def on_white(samples: np.ndarray, bits: int) -> np.ndarray:
    """Return (c, H, W) on the scale 0 to 255, an alpha channel laid on white."""
    values = samples / (2**bits - 1)
    if samples.shape[2] in (2, 4):
        alpha = values[..., -1:]
        values = values[..., :-1] * alpha + 1 - alpha
    return values.transpose(2, 0, 1) * 255


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_gray_of_every_depth_is_scaled(bits):
    samples = random_samples(bits, 1)
    content = png(samples, bits)
    assert np.array_equal(decode_bytes(content, GRAY, "x"), np.rint(on_white(samples, bits)))
    assert np.array_equal(decode_bytes(content, RGB, "x"), np.repeat(np.rint(on_white(samples, bits)), 3, axis=0))
    assert header_of(content, "x").is_grayscale


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_transparent_gray_becomes_white_at_every_depth(bits):
    samples = random_samples(bits, 1)
    samples[2, 3] = key = 2**bits // 3
    expected = np.where(samples == key, 255, np.rint(samples / (2**bits - 1) * 255)).transpose(2, 0, 1)
    assert np.array_equal(decode_bytes(png(samples, bits, (key,)), GRAY, "x"), expected)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_colour_and_alpha_of_8_and_16_bits(bits, channels):
    samples = random_samples(bits, channels)
    array = decode_bytes(png(samples, bits), RGB, "x")
    tolerance = {8: 1, 16: 2}[bits] if channels != 3 else {8: 0, 16: 1}[bits]
    assert np.abs(array - on_white(samples, bits)).max() <= tolerance


def test_png_transparent_colour_becomes_white_in_8_bits_and_is_refused_in_16():
    samples = random_samples(8, 3)
    samples[0, 0] = samples[5, 7] = (9, 99, 199)
    array = decode_bytes(png(samples, 8, (9, 99, 199)), RGB, "x")
    assert (array[:, 0, 0] == 255).all()
    assert (array[:, 5, 7] == 255).all()
    assert np.array_equal(array[:, 1], samples[1].T)
    for read in (lambda c: decode_bytes(c, RGB, "x.png"), lambda c: header_of(c, "x.png")):
        with pytest.raises(DataError, match=r"^x\.png: is a 16-bit RGB image with a transparent colour; save it"):
            read(png(samples, 16, (9, 99, 199)))


def test_png_any_changed_bit_of_its_pixels_is_named():
    samples = random_samples(8, 3)
    content = png(samples, 8)
    first, last = content.index(b"IDAT"), content.index(b"IEND") - 4
    for place in range(first, last):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(DataError, match=r"^x: .*; remove it or save it again$"):
            decode_bytes(bytes(changed), RGB, "x")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_png_truncated_is_named(kept):
    content = png(np.random.default_rng(0).integers(0, 256, (60, 80, 3)), 8)
    with pytest.raises(DataError, match=r"^x: cannot be decoded .*truncated"):
        decode_bytes(content[: int(len(content) * kept)], RGB, "x")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_png_webp_and_gif_animations_are_refused(kind):
    stream = io.BytesIO()
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "green")]
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    for read in (lambda c: decode_bytes(c, RGB, "x"), lambda c: header_of(c, "x")):
        with pytest.raises(DataError, match=r"^x: is an animation; save the frame that you want as one image$"):
            read(stream.getvalue())
