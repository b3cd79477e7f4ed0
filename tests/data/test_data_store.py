"""Stores give the same pixels wherever they keep them; reading ahead is orderly and clean."""

import itertools
from pathlib import Path
import threading
import time

from decoding import decode_image, store_in_memory
import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_sample_images

from raytricks.data import decoding_store as store_module
from raytricks.data.batches import read_ahead
from raytricks.data.decode import DecodeSpec, read_header
from raytricks.data.decoding_store import FileStore
from raytricks.data.store import RaggedStore, UniformStore, canvas_of
from raytricks.errors import DataError

PHOTO = Image.fromarray(load_sample_images().images[1])
SIZES = [(90, 60), (60, 60), (61, 130), (300, 64), (64, 64), (200, 150)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    """Pieces of a photograph, of several sizes, as JPEG and PNG."""
    directory = tmp_path_factory.mktemp("images")
    names = [str(directory / f"{i}{'.jpg' if i % 2 else '.png'}") for i in range(len(SIZES))]
    for i, (name, (width, height)) in enumerate(zip(names, SIZES, strict=True)):
        PHOTO.crop((40 * i, 20 * i, 40 * i + width, 20 * i + height)).save(name)
    return names


def in_memory(paths: list[str], spec: DecodeSpec):
    headers = [read_header(Path(path)) for path in paths]
    sizes = (np.array([getattr(h, side) for h in headers]) for side in ("height", "width"))
    return store_in_memory(paths, spec, *spec.output_sizes(*sizes))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("square", "kind"), [(True, UniformStore), (False, RaggedStore)])
def test_store_in_memory_and_in_files_reads_the_same(paths, square, kind, channels):
    spec = DecodeSpec(32, square, channels)
    memory, files = in_memory(paths, spec), FileStore(paths, spec, num_threads=2)
    assert isinstance(memory, kind)
    assert len(memory) == len(files) == len(SIZES)
    for indices in ([0], [3, 1], [5, 4, 3, 2, 1, 0], [2, 2]):
        ours, theirs = memory.read(np.array(indices)), files.read(np.array(indices))
        assert np.array_equal(ours.pixels, theirs.pixels)
        assert np.array_equal(ours.heights, theirs.heights)
        assert np.array_equal(ours.widths, theirs.widths)
        for i, pixels, height, width in zip(indices, ours.pixels, ours.heights, ours.widths, strict=True):
            assert np.array_equal(pixels[:, :height, :width], decode_image(Path(paths[i]), spec))
            assert not pixels[:, height:].any()
            assert not pixels[:, :, width:].any()


def test_store_reads_are_copies(paths):
    store = in_memory(paths, DecodeSpec(32, square=True, channels=3))
    store.read(np.array([1])).pixels.zero_()
    assert store.read(np.array([1])).pixels.any()


def test_store_reads_read_only_arrays_without_a_warning(paths):
    uniform = in_memory(paths, DecodeSpec(32, square=True, channels=3))
    ragged = in_memory(paths, DecodeSpec(32, square=False, channels=3))
    uniform.pixels.flags.writeable = False
    for array in (ragged.buffer, ragged.offsets, ragged.heights, ragged.widths):
        array.flags.writeable = False
    assert uniform.read(np.array([0, 1])).pixels.any()
    assert ragged.read(np.array([0, 1])).pixels.any()


def test_store_in_memory_names_a_damaged_file(paths, tmp_path):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(Path(paths[1]).read_bytes()[:-300])
    with pytest.raises(DataError, match=r"damaged\.jpg"):
        in_memory([*paths, str(damaged)], DecodeSpec(32, square=False, channels=3))
    assert not extra_threads()


def test_canvas_of_places_images_at_the_top_left():
    canvas = canvas_of([np.full((1, 1, 3), 7, np.uint8), np.full((1, 2, 1), 9, np.uint8)])
    assert canvas.pixels.tolist() == [[[[7, 7, 7], [0, 0, 0]]], [[[9, 0, 0], [9, 0, 0]]]]
    assert (canvas.heights.tolist(), canvas.widths.tolist()) == ([1, 2], [3, 1])


def extra_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def plan(num_batches: int, size: int = 2):
    return ((np.arange(i, i + size), i % 2 == 0) for i in range(num_batches))


@pytest.mark.parametrize("num_batches", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["memory", "files"])
def test_read_ahead_keeps_the_plan(paths, kind, num_batches):
    spec = DecodeSpec(16, square=True, channels=3)
    store = in_memory(paths, spec) if kind == "memory" else FileStore(paths, spec, num_threads=2)
    read = list(read_ahead(store, plan(num_batches), store.read))
    assert [(indices.tolist(), last) for _, (indices, last) in read] == [
        ([i, i + 1], i % 2 == 0) for i in range(num_batches)
    ]
    for canvas, (indices, _) in read:
        assert np.array_equal(canvas.pixels, store.read(indices).pixels)
    assert not extra_threads()


def test_read_ahead_raises_in_its_place_what_a_file_raises(paths, tmp_path):
    missing = str(tmp_path / "missing.jpg")
    store = FileStore([*paths[:3], missing, *paths[3:]], DecodeSpec(16, square=True, channels=3))
    reading = read_ahead(store, plan(6, size=1), store.read)
    assert [indices[0] for _, (indices, _) in itertools.islice(reading, 3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"missing\.jpg"):
        next(reading)
    assert not extra_threads()
    assert list(reading) == []


def test_read_ahead_raises_what_the_plan_raises(paths):
    def failing():
        yield np.array([0]), True
        raise RuntimeError("no order")

    with pytest.raises(RuntimeError, match="no order"):
        store = FileStore(paths, DecodeSpec(16, square=True, channels=3))
        list(read_ahead(store, failing(), store.read))
    assert not extra_threads()


def test_read_ahead_is_bounded_and_ends_early_without_reading_on(paths, monkeypatch):
    decoded = []

    def slow(path):
        time.sleep(0.02)
        decoded.append(path.name)
        return path.read_bytes()

    monkeypatch.setattr(store_module, "read_file", slow)
    store = FileStore(paths, DecodeSpec(16, square=True, channels=3), num_threads=1)
    reading = read_ahead(store, ((np.array([i % 6]), True) for i in itertools.count()), store.read)
    next(reading)
    time.sleep(0.3)
    assert len(decoded) == 3  # the one that was asked for and two more
    next(reading)
    started_s = time.perf_counter()
    reading.close()
    assert time.perf_counter() - started_s < 2
    assert not extra_threads()
    assert len(decoded) <= 4
