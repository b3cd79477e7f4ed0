"""Images of more than 8 bits a value: scaled by the range of the training images, which is kept with the model."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
import pytest

import raytricks
from raytricks.config.schema import DataConfig
from raytricks.data.decode import DecodeSpec, decode_bytes, decode_crop, header_of
from raytricks.data.info import describe
from raytricks.data.loading import find_data
from raytricks.data.pack import pack
from raytricks.data.prepared import PreparedData, prepare_data, with_augmentation
from raytricks.errors import DataError

RAMP = np.add.outer(np.arange(16), np.arange(16)) / 30  # 0 to 1
SETTINGS = {"image_size": 16, "augmentation": "shift", "shift_pixels": 0, "channels": 1, "val_fraction": 0.25}


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write(directory: Path, low: float, high: float, suffix: str = "png", dtype: type = np.uint16) -> None:
    for label in "ab":
        for number in range(8):
            path = directory / label / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            ramp = RAMP if label == "a" else RAMP[::-1]
            pixels = (low + (high - low) * ramp).astype(dtype)
            path.write_bytes(encoded(pixels, {"png": "PNG", "tif": "TIFF"}[suffix]))


def prepared(directory: Path, **settings) -> PreparedData:
    config = DataConfig(path=str(directory), **(SETTINGS | settings))
    return prepare_data(find_data(config, 0), config)


def pixels_of(data: PreparedData) -> np.ndarray:
    return data.train.images.read(np.arange(len(data.train))).pixels.numpy()


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (0, 4095), (0, 1023), (900, 5000), (40000, 40100)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_images_are_scaled_by_the_range_of_the_training_images(tmp_path, low, high, suffix):
    write(tmp_path, low, high, suffix)
    data = prepared(tmp_path)
    assert data.transform.value_range == (low, high)
    expected = {ramp.tobytes() for ramp in (np.rint(RAMP * 255), np.rint(RAMP[::-1] * 255))}
    images = pixels_of(data)
    assert len(np.unique(images)) == 31  # as many levels as there were
    if high - low > 255 * 4:
        for image in images[:, 0].astype(float):
            assert min(np.abs(image - np.frombuffer(ramp).reshape(16, 16)).max() for ramp in expected) <= 1


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.float32, -1.5, 2.5), (np.int32, 0, 2_000_000)])
def test_deep_images_of_floats_and_32_bits(tmp_path, dtype, low, high):
    write(tmp_path, low, high, "tif", dtype)
    data = prepared(tmp_path)
    assert data.transform.value_range == (low, high)
    assert (pixels_of(data).min(), pixels_of(data).max()) == (0, 255)
    assert describe(str(tmp_path)).unreadable == ()


@pytest.mark.parametrize("settings", [{"cache": "disk"}, {"cache": "none"}, {"augmentation": "random_resized_crop"}])
def test_deep_images_are_scaled_alike_wherever_they_are_decoded(tmp_path, settings):
    write(tmp_path / "data", 900, 5000)
    settings = {"cache_dir": str(tmp_path / "cache")} | settings
    data = prepared(tmp_path / "data", **settings)
    if data.transform.crops:
        boxes = np.tile([0, 0, 16, 16], (len(data.train), 1))
        images = data.train.images.read_crops(np.arange(len(data.train)), boxes, 16).pixels.numpy()
    else:
        images = pixels_of(data)
    assert np.array_equal(images, pixels_of(prepared(tmp_path / "data")))


def test_deep_images_of_the_evaluation_split_have_the_range_of_the_training_images(tmp_path):
    write(tmp_path / "train", 0, 1000)
    write(tmp_path / "val", 500, 4000)
    data = prepared(tmp_path, val_fraction=None)
    assert data.transform.value_range == (0, 1000)
    evaluated = data.evaluation.images.read(np.arange(len(data.evaluation))).pixels
    assert int(evaluated.max()) == 255 and int(evaluated.min()) in (127, 128)


def test_deep_images_with_a_few_broken_pixels(tmp_path):
    write(tmp_path, 0, 1000)
    pixels = (RAMP * 1000).astype(np.uint16)
    pixels[3, 3] = 65535
    for number in range(8, 24):
        (tmp_path / f"a/{number}.png").write_bytes(encoded((RAMP * 1000).astype(np.uint16), "PNG"))
        (tmp_path / f"b/{number}.png").write_bytes(encoded((RAMP * 1000).astype(np.uint16), "PNG"))
    (tmp_path / "a/7.png").write_bytes(encoded(pixels, "PNG"))
    low, high = prepared(tmp_path, split_seed=1).transform.value_range or (0, 0)
    assert low == 0 and 950 <= high <= 1000


def test_deep_images_of_one_value_are_no_error(tmp_path):
    write(tmp_path, 700, 700)
    assert prepared(tmp_path).transform.value_range == (700, 701)


def test_deep_images_beside_images_of_8_bits_leave_these_alone(tmp_path):
    write(tmp_path, 900, 5000)
    gray = np.rint(RAMP * 100).astype(np.uint8)
    for path in (tmp_path / "b").iterdir():
        path.write_bytes(encoded(gray, "PNG"))
    data = prepared(tmp_path)
    assert data.transform.value_range == (900, 5000)
    assert all(np.array_equal(image[0], gray) for image in pixels_of(data)[data.train.labels == 1])


def test_images_of_8_bits_have_no_range(tmp_path):
    for label in "ab":
        for number in range(4):
            path = tmp_path / label / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encoded(np.rint(RAMP * 100).astype(np.uint8), "PNG"))
    data = prepared(tmp_path)
    assert data.transform.value_range is None and pixels_of(data).max() == 100


def sixteen_bit_png(samples: np.ndarray) -> bytes:
    """Encode (H, W, 3 or 4) uint16, which Pillow cannot."""
    from test_data_png import png

    return png(samples, 16)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_deep_colours_keep_their_levels(channels):
    samples = np.stack([np.rint(RAMP * 4095)] * channels, axis=2).astype(np.int64)
    if channels in (2, 4):
        samples[..., -1] = 65535
    content = sixteen_bit_png(samples)
    assert header_of(content, "x").is_deep
    for wanted in (1, 3):
        spec = DecodeSpec(None, square=False, channels=wanted, value_range=(0, 4095))
        array = decode_bytes(content, spec, "x")
        assert np.abs(array - np.rint(RAMP * 255)).max() <= 1
        crop = decode_crop(content, (0, 0, 16, 16), 16, wanted, "x", value_range=(0, 4095))
        assert np.array_equal(crop.numpy(), array)


def test_deep_colours_lay_transparency_on_white():
    samples = np.full((4, 4, 4), 0)
    samples[:2, :, 3] = 65535
    spec = DecodeSpec(None, square=False, channels=3, value_range=(0, 4095))
    array = decode_bytes(sixteen_bit_png(samples), spec, "x")
    assert (array[:, :2] == 0).all() and (array[:, 2:] == 255).all()


def test_deep_images_with_values_that_are_no_numbers_are_named(tmp_path):
    write(tmp_path, 0, 1, "tif", np.float32)
    pixels = RAMP.astype(np.float32)
    pixels[0, 0] = np.nan
    for number in range(8):
        (tmp_path / f"a/{number}.tif").write_bytes(encoded(pixels, "TIFF"))
    with pytest.raises(DataError, match=r"a/\d.tif: holds values that are no numbers"):
        prepared(tmp_path)


@pytest.mark.parametrize("short_side", [8, 256])
def test_deep_images_are_packed_with_their_bits(tmp_path, short_side):
    write(tmp_path / "in", 0, 4095)
    pack(tmp_path / "in", tmp_path / "out", short_side=short_side)
    data = prepared(tmp_path / "out")
    low, high = data.transform.value_range or (0, 0)
    assert low == pytest.approx(0, abs=200) and high == pytest.approx(4095, abs=200)
    images = pixels_of(data)
    assert len(np.unique(images)) >= 15 and images.max() == 255
    again = pack(tmp_path / "out", tmp_path / "again", short_side=short_side)
    assert again.dataset.splits["train"].is_deep


def test_range_of_deep_images_is_kept_with_the_model(tmp_path):
    write(tmp_path / "data", 0, 4095)
    settings = {"data.image_size": 16, "model.name": "resnet8", "model.width": 8, "recipe.epochs": 2}
    settings |= {"recipe.global_batch_size": 6, "output_dir": str(tmp_path / "runs")}
    result = raytricks.train(tmp_path / "data", settings)
    assert result is not None
    assert raytricks.load(result.run_dir).preprocess.transform.value_range == (0, 4095)
    assert "values    0 to 4095 of images of more than 8 bits" in (result.run_dir / "log.txt").read_text()
    data = prepared(tmp_path / "data")
    assert with_augmentation(data.transform, DataConfig(**SETTINGS)).value_range == (0, 4095)
