"""A folder of every fault that is met in the wild: each file is decoded right or named, none is silently wrong.

Right means: close to ramps that the test draws itself, by no decoder.
"""

import errno
import io
from pathlib import Path
import struct
import zlib

from decoding import decode_image
import numpy as np
from PIL import Image
import pytest

from raytricks.data import jpeg
from raytricks.data.decode import Decoder, DecodeSpec, read_header
from raytricks.data.image_formats import naming
from raytricks.data.info import describe
from raytricks.data.pack import pack
from raytricks.data.sources.folder import load_folder
from raytricks.errors import DataError, RaytricksError

HEIGHT, WIDTH = 48, 64
SPEC = DecodeSpec(HEIGHT, square=False, channels=3)
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
COLOUR = np.stack([40 + 3 * COLUMNS, 220 - 4 * ROWS, 90 + COLUMNS + ROWS], axis=2).astype(np.uint8)
LUMA = np.rint(COLOUR @ [0.299, 0.587, 0.114])
CENTRE = (slice(10, 30), slice(20, 40))  # made transparent in the palette image
DECODERS: tuple[Decoder, ...] = ("torchvision", "pil")
if jpeg.find_spec("simplejpeg") is not None:
    DECODERS += ("simplejpeg",)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg_bytes(mode: str = "RGB", **options) -> bytes:
    return encoded(Image.fromarray(COLOUR).convert(mode), "JPEG", **{"quality": 95, "subsampling": 0} | options)


def turned_by_camera(kind: str = "JPEG") -> bytes:
    """Stored a quarter turn anticlockwise; orientation 6 asks for a quarter turn clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(COLOUR)))
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95}, "TIFF": {}}[kind]
    return encoded(stored, kind, exif=exif, **options)


def palette_with_transparency(kind: str = "PNG") -> bytes:
    """Columns 16 wide in 4 colours; the square in the centre has a fifth colour, which is transparent."""
    indices = (COLUMNS // 16).astype(np.uint8)
    indices[CENTRE] = 4
    image = Image.frombytes("P", (WIDTH, HEIGHT), indices.tobytes())
    image.putpalette([10, 20, 30, 60, 70, 80, 110, 120, 130, 160, 170, 180, 1, 2, 3])
    return encoded(image, kind, transparency=4)


def palette_on_white() -> np.ndarray:
    column = np.array([[10, 20, 30], [60, 70, 80], [110, 120, 130], [160, 170, 180]])
    pixels = column[COLUMNS // 16]
    pixels[CENTRE] = 255
    return pixels


def png_that_claims(width: int, height: int) -> bytes:
    content = encoded(Image.fromarray(COLOUR), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def jpeg_that_claims(width: int, height: int) -> bytes:
    content = jpeg_bytes()
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", height, width) + content[start + 4 :]


def gray_16_bits() -> bytes:
    return encoded(Image.fromarray((LUMA * 257).astype(np.uint16)), "PNG")


RIGHT = {  # file: content, expected (H, W, 3), largest mean difference
    "plain.jpg": (jpeg_bytes, COLOUR, 1.0),
    "progressive.jpg": (lambda: jpeg_bytes(progressive=True), COLOUR, 1.0),
    "gray.jpg": (lambda: jpeg_bytes("L"), np.stack([LUMA] * 3, axis=2), 1.0),
    "cmyk.jpg": (lambda: jpeg_bytes("CMYK"), COLOUR, 1.0),
    "rgb_without_ycc.jpg": (lambda: jpeg_bytes(keep_rgb=True), COLOUR, 1.0),
    "turned.jpg": (turned_by_camera, COLOUR, 1.0),
    "png_named.jpg": (lambda: encoded(Image.fromarray(COLOUR), "PNG"), COLOUR, 0.0),
    "gif_named.png": (lambda: palette_with_transparency("GIF"), palette_on_white(), 0.0),
    "gray_16_bits.png": (gray_16_bits, np.stack([LUMA] * 3, axis=2), 0.0),
    "palette_with_transparency.png": (palette_with_transparency, palette_on_white(), 0.0),
    "lossy.webp": (lambda: encoded(Image.fromarray(COLOUR), "WEBP", quality=95), COLOUR, 3.0),
    "lossless.webp": (lambda: encoded(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR, 0.0),
    "plain.bmp": (lambda: encoded(Image.fromarray(COLOUR), "BMP"), COLOUR, 0.0),
    "tiff_named.jpg": (lambda: encoded(Image.fromarray(COLOUR), "TIFF"), COLOUR, 0.0),
    "packed.tif": (lambda: encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"), COLOUR, 0.0),
    "turned.tif": (lambda: turned_by_camera("TIFF"), COLOUR, 0.0),
    "turned.avif": (lambda: turned_by_camera("AVIF"), COLOUR, 3.0),
    "plain.ppm": (lambda: encoded(Image.fromarray(COLOUR), "PPM"), COLOUR, 0.0),
    "plain.jp2": (lambda: encoded(Image.fromarray(COLOUR), "JPEG2000"), COLOUR, 0.0),
    "plain.tga": (lambda: encoded(Image.fromarray(COLOUR), "TGA"), COLOUR, 0.0),
}
NAMED = {  # file: content, what the error says
    "truncated_at_10_percent.jpg": (lambda: jpeg_bytes()[: len(jpeg_bytes()) // 10], "save it again"),
    "truncated_at_half.jpg": (lambda: jpeg_bytes()[: len(jpeg_bytes()) // 2], "truncated"),
    "one_byte_missing.jpg": (lambda: jpeg_bytes()[:-1], "truncated"),
    "truncated.webp": (lambda: encoded(Image.fromarray(COLOUR), "WEBP")[:-99], "cannot be decoded"),
    "text.jpg": (lambda: b"404 page not found\n", "is no image"),
    "empty.jpg": (lambda: b"", "is no image"),
    "empty.png": (lambda: b"", "is no image"),
    "bomb.png": (lambda: png_that_claims(65535, 65535), "shrink the image"),
    "bomb.jpg": (lambda: jpeg_that_claims(65535, 65535), "shrink the image"),
    "no_height.jpg": (lambda: jpeg_that_claims(WIDTH, 0), "save it again"),
    "pages.tif": (
        lambda: encoded(Image.fromarray(COLOUR), "TIFF", save_all=True, append_images=[Image.fromarray(COLOUR)]),
        "holds 2 pages; save the frame that you want",
    ),
    "document_named.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image of a supported"),
    "animation.webp": (
        lambda: encoded(
            Image.fromarray(COLOUR), "WEBP", save_all=True, append_images=[Image.fromarray(COLOUR[::-1].copy())]
        ),
        "is an animation",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("faults")
    for name, (content, *_) in (RIGHT | NAMED).items():
        (directory / name).write_bytes(content())
    return directory


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", RIGHT)
def test_faults_that_can_be_read_are_read_right(folder, name, decoder):
    _, expected, tolerance = RIGHT[name]
    header = read_header(folder / name)
    array = decode_image(folder / name, SPEC, decoder)
    assert array.shape == (3, header.height, header.width) == (3, HEIGHT, WIDTH)
    assert np.abs(array - expected.transpose(2, 0, 1).astype(float)).mean() <= tolerance


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", NAMED)
def test_faults_that_cannot_be_read_are_named_in_one_line(folder, name, decoder):
    with pytest.raises(DataError) as caught:
        decode_image(folder / name, SPEC, decoder)
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: ")
    assert NAMED[name][1] in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["text.jpg", "empty.jpg", "empty.png", "bomb.png", "bomb.jpg", "animation.webp"])
def test_faults_in_a_header_are_named_before_anything_is_decoded(folder, name):
    with pytest.raises(DataError, match=f"{name}: "):
        read_header(folder / name)


def test_faults_scan_lists_what_it_ignores_and_names_what_it_cannot_read(folder, tmp_path):
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "image.jpg").write_bytes(jpeg_bytes())
    (tmp_path / "a" / "drawing.gif").write_bytes(encoded(Image.fromarray(COLOUR).convert("P"), "GIF"))
    (tmp_path / "a" / "film.gif").write_bytes((folder / "animation.webp").read_bytes())
    (tmp_path / "b" / "scan.tiff").write_bytes(encoded(Image.fromarray(COLOUR), "TIFF"))
    found = load_folder(tmp_path)
    assert np.bincount(found.train.labels).tolist() == [2, 2]
    assert found.notes[0].endswith("ignored files that are no images that can be read, a: 1 .gif")
    (tmp_path / "a" / "text.jpg").write_bytes((folder / "text.jpg").read_bytes())
    with pytest.raises(DataError, match=r"a/text\.jpg: is no image"):
        load_folder(tmp_path)


FAILURES = [MemoryError(), OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "Input/output error")]


@pytest.mark.parametrize("failure", [*FAILURES, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
def test_faults_of_the_machine_are_not_the_images(failure):
    with pytest.raises(RaytricksError, match=r"^a/b\.jpg: ") as caught, naming("a/b.jpg"):
        raise failure
    assert not isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)


def test_faults_of_the_machine_end_a_pack_instead_of_losing_an_image(folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / "data" / name / "1.png")
    (tmp_path / "data/a/2.png").symlink_to("/proc/self/mem")  # what a failing disk answers: EIO
    with pytest.raises(RaytricksError, match="2.png: cannot be read .*the image may be sound") as caught:
        pack(tmp_path / "data", tmp_path / "packed", max_corrupt=9)
    assert not isinstance(caught.value, DataError)
    with pytest.raises(RaytricksError, match="the image may be sound"):
        describe(str(tmp_path / "data"))
