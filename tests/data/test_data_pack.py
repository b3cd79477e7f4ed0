"""Packing: what becomes of each image, and the same bytes however often the work was killed."""

from collections.abc import Callable
import fcntl
import io
import json
import multiprocessing
import os
from pathlib import Path
import resource
import shutil
import signal

import numpy as np
from PIL import Image, ImageCms
import pyarrow as pa
from pyarrow import parquet
import pytest
from sklearn.datasets import load_digits, load_sample_images

from raytricks.config.schema import DataConfig
from raytricks.data.decode import DecodeSpec, decode_bytes
from raytricks.data.decoding_store import FileStore
from raytricks.data.loading import find_data, find_splits
from raytricks.data.pack import PackResult, pack
from raytricks.data.shard_format import STATE_FILE
from raytricks.data.splits import ArrayImages
from raytricks.errors import ConfigError, DataError, RaytricksError

PHOTOS = load_sample_images().images
DIGITS = [Image.fromarray((image * 15).astype(np.uint8)) for image in load_digits().images[:12]]


def save(path: Path, image: Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Photographs of about 400 KiB in two classes: a few shards of 1 MiB in train, one in val."""
    directory = tmp_path_factory.mktemp("source") / "large"
    for i in range(6):
        for label, photo in enumerate(PHOTOS):
            split = "val" if i == 5 else "train"
            save(directory / split / f"class{label}" / f"{i}.png", Image.fromarray(photo[i : i + 330, i : i + 480]))
    return directory


@pytest.fixture
def small(tmp_path) -> Path:
    """Twelve digits in two classes."""
    for i, image in enumerate(DIGITS):
        save(tmp_path / "small" / ("even", "odd")[i % 2] / f"{i:02}.png", image)
    return tmp_path / "small"


def rows_of(out: Path, split: str = "train") -> list[dict]:
    """Return the rows of a split's shards, as pyarrow reads them."""
    files = sorted(p for p in out.glob(f"{split}-*.arrow") if ".index." not in p.name)
    return [row for file in files for row in pa.ipc.open_file(pa.memory_map(str(file))).read_all().to_pylist()]


def contents_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_pack_resizes_what_is_larger_and_keeps_the_bytes_of_the_rest(tmp_path):
    rng = Image.fromarray(PHOTOS[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "in/a/0.jpg", rng, quality=95)
    save(tmp_path / "in/a/1.png", rng)
    save(tmp_path / "in/a/2.jpg", rng.crop((0, 0, 300, 96)))
    save(tmp_path / "in/a/3.jpg", rng.convert("L"))
    save(tmp_path / "in/a/4.jpg", rng.crop((0, 0, 400, 200)), exif=turned)
    save(tmp_path / "in/b/5.webp", rng.crop((0, 0, 200, 300)))
    save(tmp_path / "in/b/6.webp", rng.crop((0, 0, 200, 300)), lossless=True)
    result = pack(str(tmp_path / "in"), tmp_path / "out", short_side=96, workers=1)
    rows = rows_of(tmp_path / "out")
    kinds, sizes = [], []
    for row in rows:
        with Image.open(io.BytesIO(row["image"])) as image:
            kinds.append((image.format, image.mode))
            sizes.append((row["height"], row["width"]))
            assert not row["image"] or image.size == (row["width"], row["height"])
    formats = ["JPEG", "PNG", "JPEG", "JPEG", "JPEG", "JPEG", "PNG"]
    assert kinds == [(name, "L" if i == 3 else "RGB") for i, name in enumerate(formats)]
    assert sizes == [(96, 144), (96, 144), (96, 300), (96, 144), (192, 96), (144, 96), (144, 96)]
    assert [row["is_grayscale"] for row in rows] == [False, False, False, True, False, False, False]
    assert rows[2]["image"] == (tmp_path / "in/a/2.jpg").read_bytes()
    assert result.num_resized == 6
    assert result.bytes_before == sum(path.stat().st_size for path in (tmp_path / "in").rglob("*.*"))
    assert result.bytes_after == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.arrow"))
    with Image.open(io.BytesIO(rows[0]["image"])) as image:
        reference = io.BytesIO()
        image.save(reference, "JPEG", quality=90)
        with Image.open(reference) as again:
            assert image.quantization == again.quantization


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pack_stores_the_pixels_that_training_decodes(tmp_path, suffix):
    for label, photo in enumerate(PHOTOS):
        save(tmp_path / "in" / str(label) / f"0.{suffix}", Image.fromarray(photo))
    pack(str(tmp_path / "in"), tmp_path / "out", short_side=128, workers=1)
    spec = DecodeSpec(128, square=False, channels=3)
    for label, row in enumerate(rows_of(tmp_path / "out")):
        original = decode_bytes((tmp_path / "in" / str(label) / f"0.{suffix}").read_bytes(), spec, "original")
        packed = decode_bytes(row["image"], spec, "packed")
        error = np.abs(original.astype(int) - packed)
        if suffix == "png":
            assert not error.any()
        else:
            assert 0 < error.mean() < 4  # what JPEG at quality 90 loses


def test_pack_of_small_sides_is_lossless(tmp_path):
    for label, photo in enumerate(PHOTOS):
        save(tmp_path / "in" / str(label) / "0.jpg", Image.fromarray(photo))
    pack(str(tmp_path / "in"), tmp_path / "out", short_side=64, workers=1)
    assert all(row["image"].startswith(b"\x89PNG") and row["height"] == 64 for row in rows_of(tmp_path / "out"))


def test_pack_of_zero_keeps_every_byte(large, tmp_path):
    result = pack(str(large), tmp_path / "out", short_side=0, workers=1)
    for split in ("train", "val"):
        for row in rows_of(tmp_path / "out", split):
            assert row["image"] == (large / row["source"]).read_bytes()
    assert result.num_resized == 0
    assert {name: split.num_images for name, split in result.dataset.splits.items()} == {"train": 10, "val": 2}


def test_pack_of_digits_is_lossless(tmp_path):
    pack("digits", tmp_path / "out", workers=1)
    ours, theirs = (find_data(c, 0) for c in (DataConfig(path=str(tmp_path / "out")), DataConfig(source="digits")))
    assert (ours.name, ours.class_names) == (theirs.name, theirs.class_names)
    assert np.array_equal(ours.train.labels, theirs.train.labels)
    assert np.array_equal(ours.evaluation.labels, theirs.evaluation.labels)
    whole = find_splits(DataConfig(source="digits")).train.images
    assert isinstance(whole, ArrayImages)
    for row, pixels in zip(rows_of(tmp_path / "out"), whole.pixels, strict=True):
        with Image.open(io.BytesIO(row["image"])) as image:
            assert np.array_equal(np.asarray(image), pixels[0])


def write_idx(directory: Path, count: int) -> None:
    directory.mkdir()
    images = np.rint(load_digits().images * 15).astype(np.uint8)
    labels = load_digits().target.astype(np.uint8)
    for split, part in (("train", slice(0, count)), ("t10k", slice(count, 2 * count))):
        for kind, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            head = bytes((0, 0, 8, array.ndim)) + b"".join(side.to_bytes(4, "big") for side in array.shape)
            (directory / f"{split}-{kind}-ubyte").write_bytes(head + array.tobytes())


def test_pack_of_idx_files_keeps_the_splits(tmp_path):
    write_idx(tmp_path / "idx", 20)
    pack(str(tmp_path / "idx"), tmp_path / "out", workers=1)
    ours, theirs = (find_data(DataConfig(path=str(tmp_path / name)), 0) for name in ("out", "idx"))
    assert (ours.evaluation.origin, len(ours.train), ours.test) == ("t10k", 20, None)
    assert theirs.evaluation.origin == "t10k"
    assert np.array_equal(ours.evaluation.labels, theirs.evaluation.labels)
    assert [row["source"] for row in rows_of(tmp_path / "out", "test")][:2] == ["test/0", "test/1"]


def test_pack_of_shards_makes_them_smaller_as_the_source_would_be(large, tmp_path):
    pack(str(large), tmp_path / "whole", short_side=0, workers=1)
    again = pack(str(tmp_path / "whole"), tmp_path / "again", short_side=48, workers=1)
    direct = pack(str(large), tmp_path / "direct", short_side=48, workers=1)
    assert again.dataset.content_sha256 == direct.dataset.content_sha256


TABLE = [("even/00.png", "2"), ("odd/01.png", "10"), ("even/02.png", "2"), ("even/04.png", "9")]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_pack_of_a_table(small, tmp_path, suffix):
    splits = ["train", "train", "validation", "train"]
    if suffix == "csv":
        lines = ["split,path,label", *(f"{split},{p},{label}" for split, (p, label) in zip(splits, TABLE, strict=True))]
        (small / "list.csv").write_text("\n".join(lines) + "\n")
    else:
        columns = {"path": [p for p, _ in TABLE], "label": [2, 10, 2, 9], "split": splits}
        parquet.write_table(pa.table(columns), small / "list.parquet")
    result = pack(str(small / f"list.{suffix}"), tmp_path / "out", workers=1)
    assert result.dataset.class_names == ("2", "9", "10")
    assert result.dataset.name == "list"
    assert [(row["source"], row["label"]) for row in rows_of(tmp_path / "out")] == [
        ("even/00.png", 0), ("odd/01.png", 2), ("even/04.png", 1),
    ]  # fmt: skip
    assert [(row["source"], row["label"]) for row in rows_of(tmp_path / "out", "val")] == [("even/02.png", 0)]


def test_pack_of_a_table_without_splits_trains_on_all(small, tmp_path):
    (small / "list.csv").write_text("path,label\n" + "".join(f"{p},class {label}\n" for p, label in TABLE))
    result = pack(str(small / "list.csv"), tmp_path / "out", workers=1)
    assert result.dataset.class_names == ("class 2", "class 9", "class 10")
    assert list(result.dataset.splits) == ["train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("where,label\na,b\n", "has no column path .*, only where, label; .*: wanted path,label"),
        ("path,path,label\na,a,b\n", "has 2 columns 'path'; rename or remove all but one"),
        ("path,label\na.png,\nb.png,x\n", "row 1 has no label"),
        ("path,label\n,x\nb.png,y\n", "row 1 has no path"),
        ("path,label,split\na.png,x,train\nb.png,y,fold1\n", "row 2 has the split 'fold1'; wanted: train, val or test"),
        ("path,label,split\na.png,x,val\nb.png,y,val\n", "has no row of the split train"),
        ("path,label,split\na.png,x,train\nb.png,y,train\nc.png,z,test\n", "class 'z' is not among the training"),
        ("path,label\na.png,x\n", "only one class, 'x'"),
        ("path,label\na.png,x,1\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_pack_of_a_bad_table_is_one_line(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        pack(str(tmp_path / "list.csv"), tmp_path / "out")
    assert str(caught.value).startswith(str(tmp_path / "list.csv")) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def uninterrupted(large, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    pack(str(large), out, short_side=0, shard_mib=1, workers=1)
    contents = contents_of(out)
    assert len([name for name in contents if name.startswith("train") and ".index." not in name]) >= 3
    assert not [name for name in contents if name.startswith(".") or name == STATE_FILE]
    return contents


def test_pack_does_not_depend_on_the_threads(large, uninterrupted, tmp_path):
    calls = []
    pack(str(large), tmp_path / "out", short_side=0, shard_mib=1, workers=3, progress=lambda *seen: calls.append(seen))
    assert contents_of(tmp_path / "out") == uninterrupted
    assert [total for _, total in calls] == [12] * len(calls)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (12, 12)


def killed(work: Callable[[], object]) -> None:
    """Run work in a process of its own, which must die of SIGKILL."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("images_done", [1, 3, 6, 9, 11])
def test_pack_killed_at_an_image_ends_with_the_same_bytes(large, uninterrupted, tmp_path, images_done):
    def progress(done: int, total: int) -> None:
        if done == images_done:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = {"short_side": 0, "shard_mib": 1, "workers": 1}
    killed(lambda: pack(str(large), tmp_path / "out", progress=progress, **settings))
    with pytest.raises(DataError, match="packing was not finished"):
        find_data(DataConfig(path=str(tmp_path / "out")), 0)
    finished = {path: path.stat().st_ino for path in (tmp_path / "out").glob("train-*.arrow")}
    pack(str(large), tmp_path / "out", **settings)
    assert contents_of(tmp_path / "out") == uninterrupted
    assert {path: path.stat().st_ino for path in finished} == finished  # not made again
    assert len(finished) >= (2 if images_done >= 6 else 0)


@pytest.mark.parametrize("renames", [0, 1, 2, 3, 5, 8, 11])
def test_pack_killed_between_two_files_ends_with_the_same_bytes(large, uninterrupted, tmp_path, renames):
    """Every state that a reader or a second pack may find is between two renames."""
    replace, count = Path.replace, 0

    def replace_or_die(self: Path, target):
        nonlocal count
        if count == renames:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return replace(self, target)

    def work() -> None:
        Path.replace = replace_or_die
        pack(str(large), tmp_path / "out", **settings)

    settings = {"short_side": 0, "shard_mib": 1, "workers": 1}
    killed(work)
    pack(str(large), tmp_path / "out", **settings)
    assert contents_of(tmp_path / "out") == uninterrupted


def test_pack_makes_a_damaged_shard_again(large, uninterrupted, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    settings = {"short_side": 0, "shard_mib": 1, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        pack(str(large), tmp_path / "out", progress=stop, **settings)
    assert not list((tmp_path / "out").glob(".*"))
    shard = tmp_path / "out/train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-8] + bytes(8))
    pack(str(large), tmp_path / "out", **settings)
    assert contents_of(tmp_path / "out") == uninterrupted


def test_pack_of_what_is_packed_does_nothing(small, tmp_path):
    first = pack(str(small), tmp_path / "out", workers=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = pack(f"{small}/../small/", tmp_path / "out", workers=2, max_corrupt=3)
    assert again.was_packed and not first.was_packed
    assert again.dataset == first.dataset
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out/train-00000.arrow").write_bytes(b"")
    with pytest.raises(DataError, match=r"train-00000\.arrow: holds 0 bytes"):
        pack(str(small), tmp_path / "out")


def touch_one(small: Path) -> None:
    os.utime(small / "odd/01.png", ns=(1, 1))


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"short_side": 4}, lambda small: None),
        ({"shard_mib": 2}, lambda small: None),
        ({}, touch_one),
        ({}, lambda small: (small / "odd/01.png").unlink()),
        ({}, lambda small: save(small / "odd/77.png", DIGITS[0])),
    ],
)
def test_pack_does_not_mix_with_another(small, tmp_path, settings, change, is_finished):
    def stop(done: int, total: int) -> None:
        if not is_finished and done == 5:
            raise KeyboardInterrupt

    try:
        pack(str(small), tmp_path / "out", workers=1, progress=stop)
    except KeyboardInterrupt:
        assert not is_finished
    before = contents_of(tmp_path / "out")
    change(small)
    message = "of other images or settings.* choose another"
    with pytest.raises(ConfigError, match=message):
        pack(str(small), tmp_path / "out", workers=1, **settings)
    assert contents_of(tmp_path / "out") == before


def test_pack_refuses_a_directory_of_other_things(small, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.thesis.tmp").write_text("")
    with pytest.raises(ConfigError, match="out: exists and holds other files; choose another name"):
        pack(str(small), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"thesis\.tmp: is a file"):
        pack(str(small), tmp_path / "out/.thesis.tmp")
    with pytest.raises(ConfigError, match="lies within the source"):
        pack(str(small), small / "packed")
    assert not (small / "packed").exists()


def test_pack_refuses_a_directory_that_another_writes(small, tmp_path):
    (tmp_path / "out").mkdir()
    directory = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="another pack is writing there"):
        pack(str(small), tmp_path / "out")
    os.close(directory)
    pack(str(small), tmp_path / "out", workers=1)


@pytest.fixture
def corrupt(small) -> Path:
    """Digits of which three are none: text, half a file, an empty file."""
    (small / "even/02.png").write_text("text")
    path = small / "odd/05.png"
    path.write_bytes(path.read_bytes()[:-30])
    (small / "odd/09.png").write_bytes(b"")
    return small


def test_pack_stops_at_the_first_unreadable_image(corrupt, tmp_path):
    with pytest.raises(DataError, match=r"even/02\.png: .*; --max-corrupt N leaves up to N such images out"):
        pack(str(corrupt), tmp_path / "out", workers=1)
    assert not list((tmp_path / "out").glob(".*"))


def test_pack_leaves_unreadable_images_out_and_lists_them(corrupt, tmp_path):
    result = pack(str(corrupt), tmp_path / "out", workers=1, max_corrupt=3)
    listed = json.loads((tmp_path / "out/dataset.json").read_text())["skipped"]
    assert tuple(listed) == result.dataset.skipped
    assert [Path(line.split(": ")[0]).name for line in listed] == ["02.png", "05.png", "09.png"]
    rows = rows_of(tmp_path / "out")
    assert [row["source"] for row in rows] == [
        *(f"even/{i:02}.png" for i in (0, 4, 6, 8, 10)),
        *(f"odd/{i:02}.png" for i in (1, 3, 7, 11)),
    ]
    assert [row["label"] for row in rows] == [0] * 5 + [1] * 4
    splits = find_data(DataConfig(path=str(tmp_path / "out")), 0)
    assert "3 unreadable images were left out" in splits.notes[0]


def test_pack_of_too_many_unreadable_images_lists_them_and_goes_on_later(corrupt, tmp_path):
    with pytest.raises(DataError) as caught:
        pack(str(corrupt), tmp_path / "out", workers=1, max_corrupt=1)
    first, *others = str(caught.value).splitlines()
    assert first == "2 unreadable images so far, --max-corrupt allows 1:"
    assert [Path(line.split(": ")[0]).name for line in others] == ["02.png", "05.png"]
    pack(str(corrupt), tmp_path / "out", workers=1, max_corrupt=3)
    pack(str(corrupt), tmp_path / "straight", workers=1, max_corrupt=3)
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "straight")


def test_pack_refuses_to_lose_a_class_or_a_split(small, tmp_path):
    for path in (small / "odd").iterdir():
        path.write_text("text")
    with pytest.raises(DataError, match="no training image of class 'odd' is readable"):
        pack(str(small), tmp_path / "out", workers=1, max_corrupt=100)
    shutil.copytree(small, tmp_path / "all/train")
    for path in (tmp_path / "all/train/even").iterdir():
        path.write_text("text")
    with pytest.raises(DataError, match="no image of train is readable"):
        pack(str(tmp_path / "all"), tmp_path / "out2", workers=1, max_corrupt=100)


def test_pack_that_cannot_write_is_one_line_and_goes_on_later(large, uninterrupted, tmp_path):
    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        with pytest.raises(RaytricksError, match=f"{tmp_path}/out: cannot be written .*run the same command again"):
            pack(str(large), tmp_path / "out", **settings)
        os.kill(os.getpid(), signal.SIGKILL)

    settings = {"short_side": 0, "shard_mib": 1, "workers": 1}
    killed(work)
    assert not list((tmp_path / "out").glob(".*"))
    result: PackResult = pack(str(large), tmp_path / "out", **settings)
    assert contents_of(tmp_path / "out") == uninterrupted
    assert not result.was_packed


def test_pack_keeps_lossless_webp_lossless_whatever_stands_before_its_pixels(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = Image.fromarray(PHOTOS[0][:200, :300])
    for label in "ab":
        save(tmp_path / f"in/{label}/1.webp", photo, lossless=True, icc_profile=profile)
        save(tmp_path / f"in/{label}/2.webp", photo, icc_profile=profile)
    pack(tmp_path / "in", tmp_path / "out", short_side=100)
    kinds = {row["source"]: Image.open(io.BytesIO(row["image"])).format for row in rows_of(tmp_path / "out")}
    assert kinds == {"a/1.webp": "PNG", "a/2.webp": "JPEG", "b/1.webp": "PNG", "b/2.webp": "JPEG"}


def test_pack_takes_names_that_are_no_utf8(tmp_path, small):
    os.rename(small / "odd" / "01.png", os.fsencode(small / "odd") + b"/\xff\xfe.png")  # noqa: PTH104
    result = pack(small, tmp_path / "out")
    assert sum(split.num_images for split in result.dataset.splits.values()) == 12
    assert sum("\ufffd" in row["source"] for row in rows_of(tmp_path / "out")) == 1
    paths = find_splits(DataConfig(path=str(small))).train.images.paths
    assert len(FileStore(paths, DecodeSpec(8, square=True, channels=1)).fingerprint()) == 64
