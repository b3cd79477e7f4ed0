"""Every kind of image file is decoded right, or named."""

import io
from pathlib import Path

from decoding import decode_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image, ImageOps
import pytest
from sklearn.datasets import load_sample_images

from raytricks.data.decode import DecodeSpec, read_header
from raytricks.errors import DataError

PHOTO = Image.fromarray(load_sample_images().images[0])
SAME_SIZE = {1: DecodeSpec(60, square=False, channels=1), 3: DecodeSpec(60, square=False, channels=3)}
SMALL = PHOTO.resize((80, 60))
ORIENTATION = 0x0112


def decoded(path: Path, spec: DecodeSpec = SAME_SIZE[3]) -> np.ndarray:
    """Decode and check against the size that the header promises."""
    header = read_header(path)
    array = decode_image(path, spec)
    heights, widths = spec.output_sizes(np.array([header.height]), np.array([header.width]))
    assert array.shape == (spec.channels, heights[0], widths[0])
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    return array


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def saved(directory: Path, image: Image.Image, suffix: str = ".png", **options) -> Path:
    path = directory / f"x{suffix}"
    image.save(path, **options)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        decode_image(path, SAME_SIZE[3])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
def test_decode_lossless_formats_exactly(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    assert np.array_equal(decoded(saved(tmp_path, SMALL, suffix, **options)), pixels(SMALL))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_decode_lossy_formats_closely(tmp_path, suffix):
    difference = decoded(saved(tmp_path, SMALL, suffix, quality=95)).astype(int) - pixels(SMALL)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_decode_png_modes_as_pillow_does(tmp_path, mode):
    image = SMALL.convert(mode)
    path = saved(tmp_path, image)
    assert np.array_equal(decoded(path), pixels(image))
    assert np.array_equal(decoded(path, SAME_SIZE[1])[0], np.asarray(image.convert("L")))
    assert read_header(path).is_grayscale == (mode in ("1", "L", "LA"))


def test_decode_cmyk_jpeg(tmp_path):
    difference = decoded(saved(tmp_path, SMALL.convert("CMYK"), ".jpg", quality=95)).astype(int) - pixels(SMALL)
    assert np.abs(difference).mean() < 4


def test_decode_scales_16_bit_gray_instead_of_clipping(tmp_path):
    gray = np.asarray(SMALL.convert("L"))
    path = saved(tmp_path, Image.fromarray(gray.astype(np.uint16) * 257))
    assert np.array_equal(decoded(path, SAME_SIZE[1])[0], gray)
    assert read_header(path).is_grayscale


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_decode_lays_transparency_on_white(tmp_path, mode):
    image = Image.new("RGBA", (60, 60), (0, 0, 0, 255)).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize((60, 60)))
        expected = 255 - np.asarray(image.getchannel("A"))
        path = saved(tmp_path, image)
    else:
        path = saved(tmp_path, image, transparency=(0, 0, 0) if mode == "RGB" else image.getpixel((0, 0)))
        expected = np.full((60, 60), 255)
    assert np.abs(decoded(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_turns_by_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, SMALL, suffix, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    header = read_header(path)
    assert (header.height, header.width) == ((80, 60) if orientation >= 5 else (60, 80))
    with Image.open(path) as image:
        expected = pixels(ImageOps.exif_transpose(image))
    assert np.array_equal(decoded(path), expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_decode_gives_the_size_that_the_header_promises(tmp_path, data):
    """JPEGs are decoded at a half, a quarter or an eighth where that is enough."""
    width, height = data.draw(st.integers(1, 640)), data.draw(st.integers(1, 427))
    exif = Image.Exif()
    exif[ORIENTATION] = data.draw(st.integers(1, 8))
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".bmp"]))
    spec = DecodeSpec(data.draw(st.integers(1, 64)), data.draw(st.booleans()), data.draw(st.sampled_from([1, 3])))
    options = {} if suffix == ".bmp" else {"exif": exif}
    decoded(saved(tmp_path, PHOTO.crop((0, 0, width, height)), suffix, **options), spec)


@pytest.mark.parametrize("size", [(640, 427), (641, 427), (639, 425), (633, 331)])
@pytest.mark.parametrize("short_side", [16, 37, 53])
def test_decode_draft_mode_keeps_sizes_and_looks(tmp_path, size, short_side):
    image = PHOTO.resize(size)
    spec = DecodeSpec(short_side, square=False, channels=3)
    from_jpeg = decoded(saved(tmp_path, image, ".jpg", quality=95), spec)
    from_png = decoded(saved(tmp_path, image, ".png"), spec)
    assert np.abs(from_jpeg.astype(int) - from_png).mean() < 5


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2000, 1), (1, 2000), (3, 2)])
@pytest.mark.parametrize("square", [False, True])
def test_decode_tiny_and_thin_images(tmp_path, width, height, square):
    spec = DecodeSpec(32, square=square, channels=3)
    array = decoded(saved(tmp_path, Image.new("RGB", (width, height), (10, 200, 30))), spec)
    assert array.shape[1] == 32 or array.shape[2] == 32
    assert max(array.shape) <= (32 if square else 128)
    assert (array == np.array([10, 200, 30], np.uint8)[:, None, None]).all()


def test_decode_square_is_the_centre(tmp_path):
    path = saved(tmp_path, PHOTO.crop((0, 0, 400, 300)))
    expected = PHOTO.crop((50, 0, 350, 300)).resize((60, 60), Image.Resampling.BILINEAR)
    array = decoded(path, DecodeSpec(60, square=True, channels=3))
    difference = array.astype(int) - pixels(expected)
    assert np.abs(difference).mean() < 1


def test_decode_names_a_truncated_jpeg(tmp_path):
    path = saved(tmp_path, SMALL, ".jpg")
    path.write_bytes(path.read_bytes()[:-200])
    assert "truncated" in error_of(path)


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\xff\xd8\xff", b"<html>404</html>", b"GIF89a"])
def test_decode_names_a_file_that_is_no_image(tmp_path, content):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    assert error_of(path).endswith("remove it or save it again")
    with pytest.raises(DataError, match="x.jpg"):
        read_header(path)


def test_decode_names_a_missing_file(tmp_path):
    assert "No such file" in error_of(tmp_path / "gone.png")


def test_decode_names_a_decompression_bomb(tmp_path, monkeypatch):
    path = saved(tmp_path, SMALL)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "shrink the image" in error_of(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Image appears to be a malformed MPO")
@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_decode_of_damaged_bytes_works_or_names_the_file(tmp_path, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stream = io.BytesIO()
    options = {} if suffix == ".bmp" else {"exif": exif}
    SMALL.resize((24, 18)).save(stream, {".jpg": "JPEG"}.get(suffix, suffix[1:]), **options)
    rng = np.random.default_rng(0)
    path = tmp_path / f"x{suffix}"
    failures = 0
    for _ in range(150):
        content = bytearray(stream.getvalue())
        for place in rng.integers(0, min(len(content), 400), 2):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content[: rng.integers(len(content) // 2, 2 * len(content))])
        try:
            decode_image(path, SAME_SIZE[3])
        except DataError as error:
            failures += 1
            assert str(error).startswith(f"{path}: ")
    assert failures > 10
