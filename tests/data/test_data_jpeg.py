"""Every JPEG decoder gives the same pixels, and none lets damage pass."""

import io

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_sample_images
import torch
from torchvision.transforms.v2 import functional as F

from raytricks.data import jpeg
from raytricks.data.decode import DecodeSpec, decode_bytes, header_of, require_decoder
from raytricks.errors import ConfigError, DataError

PHOTOS = [Image.fromarray(pixels) for pixels in load_sample_images().images]
SIMPLEJPEG = pytest.param(
    "simplejpeg", marks=pytest.mark.skipif(jpeg.find_spec("simplejpeg") is None, reason="simplejpeg is not installed")
)
DECODERS = ("torchvision", SIMPLEJPEG, "pil")
WHOLE_256 = DecodeSpec(256, square=False, channels=3)
SAME_SIZE = DecodeSpec(60, square=False, channels=3)


def encoded(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 90} | options)
    return stream.getvalue()


def photo(index: int, width: int, height: int) -> Image.Image:
    return PHOTOS[index].resize((width, height), Image.Resampling.LANCZOS)


def by_pillow(content: bytes, mode: str = "RGB") -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.array(image.convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    assert first.shape == second.shape
    return float(np.abs(first.astype(int) - second).mean())


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("quality", [75, 90, 95])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500), (300, 256)])
def test_jpeg_whole_photograph_is_pillows(size, quality, decoder):
    for index in range(len(PHOTOS)):
        content = encoded(photo(index, *size), quality=quality)
        array = decode_bytes(content, WHOLE_256, "photo", decoder)
        with Image.open(io.BytesIO(content)) as image:
            resized = image.resize(array.shape[:0:-1], Image.Resampling.BILINEAR)
        assert difference(array, np.asarray(resized).transpose(2, 0, 1)) < 0.1


@pytest.mark.parametrize("decoder", DECODERS)
def test_jpeg_square_is_torchvisions_resized_crop(decoder):
    content = encoded(photo(0, 500, 375))
    array = decode_bytes(content, DecodeSpec(224, square=True, channels=3), "photo", decoder)
    pixels = torch.from_numpy(by_pillow(content).copy())
    expected = F.resized_crop(pixels, 0, 62, 375, 375, [224, 224], antialias=True)
    assert difference(array, expected.numpy()) < 0.1


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(641, 427), (639, 851), (1000, 403), (403, 1001)])
@pytest.mark.parametrize("short_side", [16, 40, 100])
def test_jpeg_decoded_at_a_part_of_its_size_looks_the_same(size, short_side, decoder):
    image = photo(1, *size)
    assert jpeg.reduction_for(size, short_side) >= 2
    spec = DecodeSpec(short_side, square=False, channels=3)
    array = decode_bytes(encoded(image, quality=95), spec, "photo", decoder)
    resized = image.resize(array.shape[:0:-1], Image.Resampling.BILINEAR)
    assert difference(array, np.asarray(resized).transpose(2, 0, 1)) < 1


@pytest.mark.parametrize(
    ("size", "reduction"), [((500, 375), 1), ((511, 900), 1), ((512, 512), 2), ((1023, 2000), 2), ((9999, 2048), 8)]
)
def test_jpeg_reduction_keeps_twice_the_short_side(size, reduction):
    assert jpeg.reduction_for(size, 128 if reduction > 1 else 256) == reduction
    assert jpeg.reduction_for((63, 64), 16) == 1


@pytest.mark.parametrize(("reduction", "height", "width"), [(1, 301, 403), (2, 151, 202), (4, 76, 101), (8, 38, 51)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("decoder", DECODERS)
def test_jpeg_is_left_to_pillow_only_where_pillow_is_faster(decoder, channels, reduction, height, width):
    pixels = jpeg.decode_jpeg(encoded(photo(0, 403, 301)), (403, 301), channels, reduction, decoder)
    if decoder == "pil" or (decoder == "torchvision" and reduction > 1):
        assert pixels is None
    else:
        assert pixels is not None
        assert pixels.shape == (channels, height, width)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:2"}, {"keep_rgb": True}])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_decoders_agree_on_every_coding(options, channels):
    content = encoded(photo(0, 320, 240), **options)
    spec = DecodeSpec(100, square=False, channels=channels)
    reference = decode_bytes(content, spec, "photo", "pil")
    for decoder in ("torchvision", "simplejpeg") if jpeg.find_spec("simplejpeg") else ("torchvision",):
        assert difference(decode_bytes(content, spec, "photo", decoder), reference) < 0.05
    with Image.open(io.BytesIO(content)) as image:
        resized = np.asarray(
            image.resize((133, 100), Image.Resampling.BILINEAR).convert("L" if channels == 1 else "RGB")
        )
    assert difference(reference, resized.reshape(100, 133, channels).transpose(2, 0, 1)) < 0.5


@pytest.mark.parametrize("decoder", DECODERS)
def test_jpeg_gray_is_repeated_and_colour_becomes_luma(decoder):
    small = photo(1, 80, 60)
    gray = encoded(small.convert("L"))
    assert np.array_equal(decode_bytes(gray, SAME_SIZE, "gray", decoder), by_pillow(gray))
    colour = encoded(small, subsampling="4:4:4")
    luma = decode_bytes(colour, DecodeSpec(60, square=False, channels=1), "colour", decoder)
    assert difference(luma, by_pillow(colour, "L")) < 0.5
    assert header_of(gray, "gray").is_grayscale
    assert not header_of(colour, "colour").is_grayscale


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("transform", [0, 2])
def test_jpeg_cmyk_and_ycck_are_pillows(decoder, transform):
    """Adobe's transform byte says whether four components are CMYK (0) or YCCK (2)."""
    content = bytearray(encoded(photo(0, 80, 60).convert("CMYK")))
    content[content.index(b"Adobe") + 11] = transform
    assert np.array_equal(decode_bytes(bytes(content), SAME_SIZE, "cmyk", decoder), by_pillow(bytes(content)))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, -10, -2, -1])
@pytest.mark.parametrize("short_side", [16, 256])
def test_jpeg_truncated_is_named(kept, progressive, decoder, short_side):
    content = encoded(photo(0, 400, 300), progressive=progressive)
    cut = content[: int(len(content) * kept) if kept > 0 else kept]
    with pytest.raises(DataError, match=r"^a/b\.jpg: cannot be decoded .*truncated"):
        decode_bytes(cut, DecodeSpec(short_side, square=False, channels=3), "a/b.jpg", decoder)


@pytest.mark.parametrize("decoder", DECODERS)
def test_jpeg_with_bytes_after_its_end_is_whole(decoder):
    content = encoded(photo(0, 80, 60))
    assert np.array_equal(decode_bytes(content + b"camera notes" * 9, SAME_SIZE, "x", decoder), by_pillow(content))


@pytest.mark.parametrize("decoder", DECODERS)
def test_jpeg_bomb_is_refused_by_its_header(decoder):
    content = bytearray(encoded(photo(0, 80, 60)))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = b"\xff\xff\xff\xff"
    for read in (lambda name: decode_bytes(content, SAME_SIZE, name, decoder), lambda name: header_of(content, name)):
        with pytest.raises(DataError, match=r"^bomb\.jpg: .*4294836225 pixels.*; shrink the image"):
            read("bomb.jpg")


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("orientation", [0, 9])
def test_jpeg_orientation_that_does_not_exist_is_none(orientation, decoder):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(0, 80, 60), exif=exif)
    assert (header_of(content, "x").height, header_of(content, "x").width) == (60, 80)
    assert np.array_equal(decode_bytes(content, SAME_SIZE, "x", decoder), by_pillow(content))


@pytest.mark.parametrize("decoder", DECODERS)
def test_jpeg_content_may_be_a_memoryview(decoder):
    content = encoded(photo(0, 320, 240))
    view = memoryview(b"before" + content + b"after")[6:-5]
    expected = decode_bytes(content, SAME_SIZE, "x", decoder)
    assert np.array_equal(decode_bytes(view, SAME_SIZE, "x", decoder), expected)
    assert header_of(view, "x") == header_of(content, "x")


@pytest.mark.parametrize("decoder", DECODERS)
def test_jpeg_first_picture_of_an_mpo(decoder):
    stream = io.BytesIO()
    small = photo(0, 80, 60)
    small.save(stream, "MPO", save_all=True, append_images=[photo(1, 80, 60)], quality=95)
    assert (
        difference(decode_bytes(stream.getvalue(), SAME_SIZE, "x", decoder), np.asarray(small).transpose(2, 0, 1)) < 4
    )


def test_jpeg_pillow_takes_over_from_a_torchvision_without_decoder(monkeypatch):
    content = encoded(photo(0, 80, 60))
    monkeypatch.setattr(jpeg, "_TORCHVISION_DECODE", None)
    require_decoder("torchvision")
    assert np.array_equal(decode_bytes(content, SAME_SIZE, "x"), by_pillow(content))


def test_jpeg_missing_simplejpeg_is_a_config_error_before_any_work(monkeypatch):
    monkeypatch.setattr(jpeg, "find_spec", lambda name: None)
    for call in (lambda: require_decoder("simplejpeg"), lambda: decode_bytes(b"", SAME_SIZE, "x", "simplejpeg")):
        with pytest.raises(ConfigError, match="pip install simplejpeg"):
            call()
    require_decoder("pil")
    with pytest.raises(ConfigError, match="torchvision, simplejpeg, pil, got 'turbo'"):
        require_decoder("turbo")
