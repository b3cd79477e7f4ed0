"""The cache of logits: what the teacher would say, computed once, and never trusted when damaged."""

from collections.abc import Iterator
from dataclasses import replace
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed
import torch.multiprocessing as multiprocessing

from raytricks.config import load_config
from raytricks.data.batches import TrainBatches
from raytricks.data.decode import DecodeSpec
from raytricks.data.decoding_store import FileStore
from raytricks.data.prepared import LabelledImages, PreparedData
from raytricks.data.store import RaggedStore, UniformStore
from raytricks.errors import RaytricksError
from raytricks.recipe.chain import image_chain
from raytricks.training.loop import run_epochs
from raytricks.training.teacher import Teacher, load_teacher
from raytricks.training.teacher_cache import TeacherCache, open_cache
from raytricks.training.teacher_cache_key import cache_bytes, content_fingerprint, is_static
from raytricks.training.worker import Worker


def erasing(probability: float):
    return image_chain(load_config(None, {"tricks.random_erasing.probability": probability}).config)


ERASING = erasing(0.5)
CPU = torch.device("cpu")


def teacher_of(run_dir: Path, data: PreparedData) -> Teacher:
    return load_teacher(str(run_dir), weights=None, data=data, device=CPU, precision="fp32", channels_last=True)


def opened(folder: Path, teacher: Teacher, data: PreparedData, worker: Worker | None = None, **changes) -> TeacherCache:
    options = {"image_tricks": None, "augmentation_seed": 3, "batch_size": 7, "transform": data.transform}
    options["side"] = data.transform.image_size
    return open_cache(
        folder,
        teacher=teacher,
        data=data.train,
        num_classes=data.num_classes,
        worker=worker or Worker(),
        **options | changes,  # type: ignore[arg-type]
    )


def count_images(teacher: Teacher) -> list[int]:
    """Return a list that grows by the batch size at each forward pass of the teacher."""
    seen: list[int] = []
    teacher.model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    return seen


@pytest.fixture(scope="module")
def folder_of_runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture
def data(make_job) -> PreparedData:
    """33 digits, shifted at random."""
    return make_job("student", num_train=33).data


@pytest.fixture
def run_dir(make_job, folder_of_runs) -> Path:
    """A finished run, trained once for all tests."""
    finished = folder_of_runs / "run"
    if not finished.exists():
        job = make_job("teacher", recipe__epochs=2)
        list(run_epochs(job, Worker()))
        job.run_dir.rename(finished)
    return finished


@pytest.fixture
def teacher(run_dir, data) -> Teacher:
    return teacher_of(run_dir, data)


def stored_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("image_tricks", [None, ERASING])
def test_teacher_cache_holds_what_the_teacher_says_of_the_steps_images(tmp_path, data, teacher, image_tricks):
    cache = opened(tmp_path, teacher, data, image_tricks=image_tricks)
    for epoch in (0, 5):
        logits, _ = cache.fill_epoch(epoch)
        assert logits.shape == (33, 10) and logits.dtype == np.float32
        batches = training_batches(data, image_tricks)
        seen = 0
        for batch, (samples, _) in zip(batches.epoch(epoch), batches.samples(epoch), strict=True):
            looked_up = torch.from_numpy(logits[samples])
            torch.testing.assert_close(looked_up, teacher.logits(batch.inputs), rtol=0, atol=1e-5)
            seen += len(samples)
        assert seen == 32
    assert not np.array_equal(cache.fill_epoch(0).logits, cache.fill_epoch(5).logits)
    assert stored_files(tmp_path) == ["description.json", "epoch-0000.npy", "epoch-0005.npy"]


def training_batches(data: PreparedData, image_tricks) -> TrainBatches:
    return TrainBatches(
        data=data.train,
        transform=data.transform,
        global_batch_size=8,
        rank=0,
        world_size=1,
        images_per_device=3,
        seed=99,
        augmentation_seed=3,
        image_tricks=image_tricks,
        device=CPU,
        with_neighbours=False,
    )


def test_teacher_cache_answers_a_second_run_without_the_teacher(tmp_path, data, teacher, run_dir):
    first = opened(tmp_path, teacher, data)
    assert first.epoch(2) is None
    logits, note = first.fill_epoch(2)
    assert note is not None and "epoch 3 computed" in note
    again = teacher_of(run_dir, data)
    second, seen = opened(tmp_path, again, data, batch_size=64), count_images(again)
    assert second.folder == first.folder
    cached, note = second.fill_epoch(2)
    assert np.array_equal(cached, logits) and note is None and seen == []
    direct = second.epoch(2)
    assert direct is not None and np.array_equal(direct, logits)
    second.fill_epoch(3)
    assert seen == [33]


def test_teacher_cache_is_mapped_and_not_read_into_memory(tmp_path, data, teacher):
    logits, _ = opened(tmp_path, teacher, data).fill_epoch(0)
    assert isinstance(logits.base, np.memmap) and not logits.flags.writeable
    assert torch.from_numpy(logits[np.array([4, 2])]).shape == (2, 10)


def test_teacher_cache_key_changes_with_all_that_matters(tmp_path, data, teacher, make_job):
    def folder(student=data, by=teacher, **changes) -> Path:
        return opened(tmp_path, by, student, **changes).folder

    other_job = make_job("other", recipe__epochs=2, seed=1)
    list(run_epochs(other_job, Worker()))
    pixels = data.train.images.pixels.copy()
    pixels[20, 0, 4, 4] ^= 1
    one_pixel = replace(data, train=LabelledImages(UniformStore(pixels), data.train.labels, ""))
    turned = LabelledImages(UniformStore(data.train.images.pixels[::-1].copy()), data.train.labels, "")
    in_bf16 = teacher_of_precision(other_job.run_dir, data)
    folders = [
        folder(),
        folder(by=teacher_of(other_job.run_dir, data)),
        folder(by=in_bf16),
        folder(augmentation_seed=4),
        folder(transform=replace(data.transform, horizontal_flip=True)),
        folder(transform=replace(data.transform, shift_pixels=3)),
        folder(image_tricks=ERASING),
        folder(image_tricks=erasing(0.6)),
        folder(one_pixel),
        folder(replace(data, train=turned)),
    ]
    assert len(set(folders)) == len(folders)
    assert folder(batch_size=64) == folders[0]  # how it is computed does not matter
    relabelled = replace(data, train=replace(data.train, labels=data.train.labels[::-1].copy()))
    assert folder(relabelled) == folders[0]  # the teacher does not see the labels


def teacher_of_precision(run_dir: Path, data: PreparedData) -> Teacher:
    return load_teacher(str(run_dir), weights=None, data=data, device=CPU, precision="bf16", channels_last=True)


def test_teacher_cache_description_says_what_it_is(tmp_path, data, teacher):
    folder = opened(tmp_path, teacher, data).folder
    assert len(folder.name) == 16 and int(folder.name, 16) >= 0
    content = json.loads((folder / "description.json").read_text())
    assert content["teacher"] == teacher.digest
    assert content["augmentation_seed"] == 3
    assert content["transform"]["kind"] == "shift"
    assert set(content) == {
        *("format", "teacher", "teacher_preprocessing", "precision", "transform", "side", "image_tricks"),
        *("augmentation_seed", "images"),
    }


@pytest.mark.parametrize("damage", ["emptied", "truncated", "lengthened", "header", "first", "middle", "digest"])
def test_teacher_cache_computes_a_damaged_file_again(tmp_path, data, teacher, damage):
    cache = opened(tmp_path, teacher, data)
    logits, _ = cache.fill_epoch(0)
    expected, path = logits.copy(), cache.path(0)
    whole = path.read_bytes()
    flipped = {"header": 20, "first": 128, "middle": len(whole) // 2, "digest": len(whole) - 1}
    if damage in flipped:
        content = bytearray(whole)
        content[flipped[damage]] ^= 1
    else:
        content = {"emptied": b"", "truncated": whole[:-4], "lengthened": whole + b"1234"}[damage]
    path.write_bytes(content)
    assert cache.epoch(0) is None
    again, note = cache.fill_epoch(0)
    assert note is not None and "was damaged and is computed again" in note and str(path) in note
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-6)
    assert path.read_bytes() == whole


def test_teacher_cache_refuses_a_whole_file_of_another_shape(tmp_path, data, teacher):
    cache = opened(tmp_path, teacher, data)
    smaller = opened(tmp_path, teacher, replace(data, train=first(data.train, 5)))
    smaller.fill_epoch(0)
    cache.path(0).write_bytes(smaller.path(0).read_bytes())
    assert cache.epoch(0) is None
    assert cache.fill_epoch(0).logits.shape == (33, 10)


def first(split: LabelledImages, count: int) -> LabelledImages:
    return LabelledImages(UniformStore(split.images.pixels[:count]), split.labels[:count], split.origin)


def test_teacher_cache_stores_one_epoch_without_random_augmentation(tmp_path, data, teacher):
    still = replace(data.transform, kind="none", horizontal_flip=False)
    seen = count_images(teacher)
    cache = opened(tmp_path, teacher, data, transform=still)
    epochs = [cache.fill_epoch(epoch).logits for epoch in (4, 0, 9)]
    assert sum(seen) == 33
    assert all(np.array_equal(epoch, epochs[0]) for epoch in epochs)
    assert stored_files(tmp_path) == ["description.json", "epoch-0000.npy"]
    assert opened(tmp_path, teacher, data, transform=still, augmentation_seed=8).folder == cache.folder


def test_teacher_cache_knows_which_augmentation_is_random(data):
    transform = replace(data.transform, kind="none", horizontal_flip=False)
    assert is_static(transform, None)
    assert is_static(replace(transform, kind="shift", shift_pixels=0), None)
    assert not is_static(replace(transform, kind="shift", shift_pixels=1), None)
    assert not is_static(replace(transform, kind="random_resized_crop"), None)
    assert not is_static(replace(transform, horizontal_flip=True), None)
    assert not is_static(transform, ERASING)


def test_teacher_cache_fingerprint_of_ragged_images_and_of_files(tmp_path):
    one, two = np.array([1, 2]), np.array([2, 1])
    buffer = np.arange(4, dtype=np.uint8)
    ragged = [
        RaggedStore(buffer, np.array([0, 2]), one, two, 1),
        RaggedStore(buffer[::-1].copy(), np.array([0, 2]), one, two, 1),
        RaggedStore(buffer, np.array([0, 2]), two, one, 1),
    ]
    assert len({content_fingerprint(store) for store in ragged}) == 3
    path = tmp_path / "image.png"
    path.write_bytes(b"12")
    store = FileStore([str(path)], DecodeSpec(8, square=True, channels=1))
    prints = [content_fingerprint(store), content_fingerprint(store)]
    assert prints[0] == prints.pop()
    prints.append(content_fingerprint(FileStore(store.paths, DecodeSpec(16, square=True, channels=1))))
    path.write_bytes(b"123")
    prints.append(content_fingerprint(store))
    os.utime(path, ns=(1, 1))
    prints.append(content_fingerprint(store))
    assert len(set(prints)) == 4


def test_teacher_cache_bytes_by_hand():
    assert cache_bytes(50_000, 10, 30) == 60_000_000
    assert cache_bytes(1_281_167, 1000, 1) == 5_124_668_000


def test_teacher_cache_is_filled_by_two_runs_at_once(tmp_path, data, teacher, run_dir):
    other = teacher_of(run_dir, data)
    late = opened(tmp_path, other, data)
    early = opened(tmp_path, teacher, data)
    fills = 0

    def overtake(*_) -> None:
        nonlocal fills
        fills += 1
        if fills == 2:  # in the middle of the first run's fill, the second does all of its own
            late.fill_epoch(1)

    teacher.model.register_forward_hook(overtake)
    logits, _ = early.fill_epoch(1)
    assert fills == 5
    mapped = late.epoch(1)
    assert mapped is not None and np.array_equal(mapped, logits)
    assert stored_files(tmp_path) == ["description.json", "epoch-0001.npy"]


def test_teacher_cache_of_a_failed_fill_leaves_no_file(tmp_path, data, teacher):
    cache = opened(tmp_path, teacher, data)

    def fail(*_) -> None:
        raise RuntimeError("out of memory")

    handle = teacher.model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        cache.fill_epoch(0)
    assert stored_files(tmp_path) == ["description.json"]
    handle.remove()
    assert cache.fill_epoch(0).logits.shape == (33, 10)


def test_teacher_cache_that_cannot_be_written_says_so(tmp_path, data, teacher):
    (tmp_path / "in-the-way").write_text("")
    with pytest.raises(RaytricksError, match="^tricks.distillation.cache_dir: .*cannot be used .*in-the-way") as caught:
        opened(tmp_path / "in-the-way", teacher, data)
    assert "\n" not in str(caught.value)
    cache = opened(tmp_path / "cache", teacher, data)
    cache.path(0).mkdir()
    with pytest.raises(RaytricksError, match="^tricks.distillation.cache_dir: .*cannot be used") as caught:
        cache.fill_epoch(0)
    assert "\n" not in str(caught.value)


def test_teacher_cache_removes_what_a_killed_fill_left(tmp_path, data, teacher):
    folder = opened(tmp_path, teacher, data).folder
    (folder / ".tmp-old").write_bytes(b"")
    (folder / ".tmp-new").write_bytes(b"")
    os.utime(folder / ".tmp-old", (0, 0))
    opened(tmp_path, teacher, data)
    assert stored_files(folder) == [".tmp-new", "description.json"]  # another run may be writing that one


def fill_together(rank: int, meeting: str, folder: Path, run_dir: Path, data: PreparedData, results) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    teacher = teacher_of(run_dir, data)
    seen = count_images(teacher)
    cache = opened(folder, teacher, data, Worker(rank, 2))
    filled = cache.fill_epoch(0)
    first_logits = filled.logits.copy()
    cache.fill_epoch(0)  # found, by both
    outcome: tuple = (cache.folder, first_logits, filled.note, sum(seen))
    if rank == 1:
        teacher.model.register_forward_hook(lambda *_: 1 / 0)
    try:
        cache.fill_epoch(1)
    except Exception as error:
        outcome = (*outcome, type(error).__name__, str(error))
    distributed.destroy_process_group()
    results.put((rank, outcome))


@pytest.fixture
def processes() -> Iterator[list]:
    started: list = []
    yield started
    for process in started:
        process.join(30)
        process.kill()


def test_teacher_cache_is_filled_by_two_workers_together(tmp_path, data, teacher, run_dir, processes):
    alone = opened(tmp_path / "alone", teacher, data)
    expected = alone.fill_epoch(0).logits
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["raytricks.training.loop"])
    results = context.Queue()
    arguments = (f"file://{tmp_path}/meeting", tmp_path / "together", run_dir, data, results)
    for rank in range(2):
        processes.append(context.Process(target=fill_together, args=(rank, *arguments), daemon=True))
        processes[-1].start()
    outcomes = dict(results.get(timeout=100) for _ in processes)
    for rank, (folder, logits, note, num_images, kind, message) in outcomes.items():
        assert folder == tmp_path / "together" / alone.folder.name
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
        assert num_images == (16, 17)[rank]
        assert (note is None) == (rank == 1)
        assert kind == ("RaytricksError", "ZeroDivisionError")[rank]  # both stop, neither waits for the other
        assert "another worker failed" in message or rank == 1
    assert stored_files(tmp_path / "together") == ["description.json", "epoch-0000.npy"]


def test_teacher_cache_sees_images_of_the_training_side(tmp_path, run_dir, data):
    evaluated_larger = replace(data.transform, image_size=12)
    teacher = teacher_of(run_dir, data)
    same = opened(tmp_path, teacher, data)
    larger = opened(tmp_path, teacher, data, transform=evaluated_larger, side=data.transform.image_size)
    np.testing.assert_array_equal(larger.fill_epoch(0).logits, same.fill_epoch(0).logits)
    assert len({opened(tmp_path, teacher, data, side=side).folder for side in (8, 12)}) == 2
