"""Decoded images in one mapped file: the same pixels, made once, in memory once."""

import fcntl
import multiprocessing
import os
from pathlib import Path
import pickle
import time

import numpy as np
from PIL import Image
import pytest

from raytricks.config import load_config
from raytricks.data.decode import DecodeSpec
from raytricks.data.decoding_store import FileStore
from raytricks.data.disk_store import DiskStore
from raytricks.data.loading import find_data
from raytricks.data.prepared import prepare_data
from raytricks.data.store import RaggedStore, UniformStore
from raytricks.errors import DataError

SQUARES, WHOLE = DecodeSpec(24, square=True, channels=3), DecodeSpec(None, square=False, channels=3)
NUM_BYTES = 64 * 2**20


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(9):
        pixels = rng.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return sorted(str(path) for path in folder.iterdir())


def disk_store(paths, folder: Path, spec: DecodeSpec = SQUARES) -> DiskStore:
    source = FileStore(paths, spec)
    return DiskStore(source, *spec.output_sizes(*source.sizes(np.arange(len(paths)))), folder)


@pytest.mark.parametrize(("spec", "kind"), [(SQUARES, UniformStore), (WHOLE, RaggedStore)])
def test_disk_store_reads_what_its_source_reads(paths, tmp_path, spec, kind):
    store, chosen = disk_store(paths, tmp_path, spec), np.array([8, 0, 3])
    ours, theirs = store.read(chosen), store.source.read(chosen)
    assert isinstance(store.mapped(), kind)
    assert np.array_equal(ours.pixels, theirs.pixels) and np.array_equal(ours.heights, theirs.heights)
    boxes = np.array([[2, 3, 20, 20], [0, 0, 24, 24], [5, 1, 11, 17]])
    assert np.array_equal(store.sizes(chosen)[0], theirs.heights)
    if spec is WHOLE:
        crops = [s.read_crops(chosen, boxes, 16).pixels for s in (store, store.source)]
        assert np.array_equal(*crops)


def test_disk_store_is_made_once_and_leaves_nothing_else(paths, tmp_path, monkeypatch):
    first = disk_store(paths, tmp_path)
    first.mapped()
    made_ns = first.path.stat().st_mtime_ns
    monkeypatch.setattr(FileStore, "decode", lambda *_: pytest.fail("decoded again"))
    again = disk_store(paths, tmp_path)
    again.mapped()
    assert again.path.stat().st_mtime_ns == made_ns
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".lock", ".pixels"]


def test_disk_store_travels_without_pixels_and_decodes_where_the_file_is_missing(paths, tmp_path):
    store = disk_store(paths, tmp_path)
    expected = store.read(np.arange(9)).pixels
    content = pickle.dumps(store)
    assert len(content) < 3000 < store.num_bytes
    store.path.unlink()
    assert np.array_equal(pickle.loads(content).read(np.arange(9)).pixels, expected)


@pytest.mark.parametrize("change", ["touched", "spec"])
def test_disk_store_of_other_content_is_another_file(paths, tmp_path, change):
    before = disk_store(paths, tmp_path).path
    if change == "touched":
        os.utime(paths[4], ns=(0, time.time_ns()))
    assert disk_store(paths, tmp_path, WHOLE if change == "spec" else SQUARES).path != before


def test_disk_store_that_was_cut_short_is_made_again(paths, tmp_path):
    store = disk_store(paths, tmp_path)
    expected = store.read(np.arange(9)).pixels
    os.truncate(store.path, 100)
    assert np.array_equal(disk_store(paths, tmp_path).read(np.arange(9)).pixels, expected)


def test_disk_store_names_a_damaged_image_and_leaves_no_file(paths, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(Path(paths[2]).read_bytes()[:200])
    source = FileStore([paths[0], str(damaged)], SQUARES, sizes=(np.array([30, 32]), np.array([40, 40])))
    store = DiskStore(source, np.array([24, 24]), np.array([24, 24]), tmp_path / "cache")
    with pytest.raises(DataError, match="damaged.png"):
        store.mapped()
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


def test_disk_store_on_a_full_disk_is_one_line(paths, tmp_path):
    store = disk_store(paths, tmp_path)
    store._heights = store._heights * 10**9  # more than any disk has free
    with pytest.raises(DataError, match=r"data.cache_dir .* cannot be kept there \(.*\); choose another") as caught:
        store.mapped()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cache", ["auto", "memory", "disk", "none"])
def test_every_cache_gives_the_same_training_data(paths, tmp_path, cache):
    for number, path in enumerate(paths):
        target = tmp_path / "photos" / f"class{number % 2}" / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    settings = {"data.path": str(tmp_path / "photos"), "data.cache": cache, "data.cache_dir": str(tmp_path / "cache")}
    shape = {"data.image_size": 16, "data.channels": 3, "data.augmentation": "shift", "data.shift_pixels": 2}
    config = load_config(None, settings | shape).config
    data = prepare_data(find_data(config.data, 0), config.data)
    kinds = {"auto": UniformStore, "memory": UniformStore, "disk": DiskStore, "none": FileStore}
    assert type(data.train.images) is kinds[cache]
    pixels = data.train.images.read(np.arange(len(data.train))).pixels
    plain = FileStore(data.train.images.source.paths, DecodeSpec(16, True, 3)) if cache == "disk" else None
    if plain is not None:
        assert np.array_equal(pixels, plain.read(np.arange(len(plain))).pixels)
    assert (int(pixels.sum()), data.transform.mean) == _expected(tmp_path / "photos", shape)


def _expected(folder: Path, shape) -> tuple[int, tuple[float, ...]]:
    config = load_config(None, {"data.path": str(folder), "data.cache": "none"} | shape).config
    data = prepare_data(find_data(config.data, 0), config.data)
    return int(data.train.images.read(np.arange(len(data.train))).pixels.sum()), data.transform.mean


class Noise(FileStore):
    """Large images that cost nothing to decode."""

    def decode(self, index: int) -> np.ndarray:
        return np.full((1, 1024, 1024), index, np.uint8)

    def fingerprint(self) -> str:
        return "0" * 64


def _noise_store(folder: str) -> DiskStore:
    count = NUM_BYTES // 2**20
    return DiskStore(Noise([""] * count, DecodeSpec(None, False, 1)), *[np.full(count, 1024)] * 2, Path(folder))


def _read_all(folder: str, go, result) -> None:
    """Read every image of the cached set, then report this process's share of memory that came with it."""
    store = _noise_store(folder)
    store.read(np.array([0]))  # what a first read imports and allocates is no data
    before = _pss_bytes()
    total = sum(int(store.read(np.array([i])).pixels[0, 0, 0, 0]) for i in range(len(store)))
    go.wait()  # all readers have the set mapped while each measures
    result.put((total, _pss_bytes() - before))
    go.wait()


def _pss_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _memory_of(folder: Path, readers: int) -> int:
    context = multiprocessing.get_context("spawn")
    go, result = context.Barrier(readers), context.Queue()
    processes = [context.Process(target=_read_all, args=(str(folder), go, result)) for _ in range(readers)]
    for process in processes:
        process.start()
    found = [result.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert {total for total, _ in found} == {sum(range(NUM_BYTES // 2**20))}
    return sum(pss for _, pss in found)


@pytest.mark.slow
def test_four_readers_of_one_cached_set_take_the_memory_of_one(tmp_path):
    _noise_store(str(tmp_path)).mapped()
    one, four = (_memory_of(tmp_path, readers) for readers in (1, 4))
    print(f"PSS of 1 reader {one / 2**20:.1f} MiB, of 4 together {four / 2**20:.1f} MiB")
    assert one > 0.9 * NUM_BYTES  # the set is really there
    assert four <= 1.1 * one


def test_disk_store_removes_what_a_killed_process_left_and_nothing_that_is_being_made(paths, tmp_path):
    (tmp_path / "abandoned.unfinished").write_bytes(b"half")
    (tmp_path / "busy.unfinished").write_bytes(b"half")
    with (tmp_path / "busy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        disk_store(paths, tmp_path).mapped()
    assert [path.name for path in tmp_path.glob("*.unfinished")] == ["busy.unfinished"]
