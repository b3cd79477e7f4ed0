"""Which samples a step and a worker get: the global batch is the same however it is spread."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest
import torch

import raytricks
from raytricks.data.augmentation import Transform
from raytricks.data.batches import TrainBatches
from raytricks.data.order import balanced_order, epoch_order, even_share, micro_batches, with_left_neighbour
from raytricks.data.prepared import LabelledImages
from raytricks.data.store import UniformStore


def batches(num_images: int, **changes) -> TrainBatches:
    """Return batches of images that hold nothing: only their order is looked at."""
    images = UniformStore(np.zeros((num_images, 1, 1, 1), np.uint8))
    plain = TrainBatches(
        data=LabelledImages(images, np.arange(num_images), "train"),
        transform=Transform(kind="none", image_size=1, mean=(0.0,), std=(1.0,)),
        global_batch_size=10,
        rank=0,
        world_size=1,
        images_per_device=None,
        seed=0,
        device=torch.device("cpu"),
        with_neighbours=False,
    )
    return replace(plain, **changes)


def steps(of_worker: TrainBatches, epoch: int, first_step: int = 0) -> list[list[np.ndarray]]:
    """Group a worker's micro-batches by optimizer step."""
    grouped: list[list[np.ndarray]] = [[]]
    for samples, is_last in of_worker.samples(epoch, first_step):
        grouped[-1].append(samples)
        if is_last:
            grouped.append([])
    assert grouped.pop() == []  # the last micro-batch ended its step
    return grouped


@given(st.integers(0, 500), st.integers(0, 2**31 - 1), st.integers(0, 300))
def test_order_is_a_permutation_that_seed_and_epoch_decide(num_images, seed, epoch):
    order = epoch_order(num_images, seed, epoch)
    assert sorted(order) == list(range(num_images))
    assert np.array_equal(order, epoch_order(num_images, seed, epoch))


def test_order_differs_by_seed_and_epoch():
    orders = {tuple(epoch_order(30, seed, epoch)) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_order_puts_every_image_everywhere():
    places = np.stack([epoch_order(8, 0, epoch) for epoch in range(2000)])
    counts = np.stack([np.bincount(places[:, i], minlength=8) for i in range(8)])
    assert np.abs(counts - 250).max() < 5 * np.sqrt(250)


@given(st.integers(0, 1000), st.integers(1, 40))
def test_order_shares_are_contiguous_complete_and_even(total, num_parts):
    shares = [even_share(total, part, num_parts) for part in range(num_parts)]
    assert shares[0][0] == 0
    assert shares[-1][1] == total
    assert all(a[1] == b[0] for a, b in zip(shares, shares[1:], strict=False))
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 50), st.integers(1, 300), st.none() | st.integers(1, 320))
def test_order_micro_batches_are_the_fewest_even_pieces(start, size, max_images):
    pieces = micro_batches(start, start + size, max_images)
    assert [i for a, b in pieces for i in range(a, b)] == list(range(start, start + size))
    sizes = [b - a for a, b in pieces]
    limit = max_images or size
    assert max(sizes) <= limit
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) == -(-size // limit)


@given(st.integers(1, 60), st.data())
def test_order_left_neighbours_are_torch_roll(size, data):
    batch = np.random.default_rng(size).permutation(1000)[:size]
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    chosen = with_left_neighbour(batch, start, stop)
    assert np.array_equal(chosen[1:], batch[start:stop])
    assert np.array_equal(chosen[:-1], torch.from_numpy(batch).roll(1)[start:stop])


@pytest.mark.parametrize("images_per_device", [None, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("global_batch_size", [16, 10, 13])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_order_of_all_workers_is_the_order_of_one(world_size, global_batch_size, images_per_device):
    one = batches(100, global_batch_size=global_batch_size)
    expected = [step[0] for step in steps(one, 4)]
    assert len(expected) == one.steps_per_epoch == 100 // global_batch_size
    order = epoch_order(100, 0, 4)
    assert np.array_equal(np.concatenate(expected), order[: len(expected) * global_batch_size])
    workers = [
        steps(replace(one, rank=rank, world_size=world_size, images_per_device=images_per_device), 4)
        for rank in range(world_size)
    ]
    for step, batch in enumerate(expected):
        together = np.concatenate([piece for worker in workers for piece in worker[step]])
        assert np.array_equal(together, batch)


@given(st.integers(1, 40), st.integers(1, 40), st.none() | st.integers(1, 12), st.integers(0, 200))
def test_order_neighbours_of_all_workers_are_one_roll(batch_size, world_size, images_per_device, epoch):
    world_size = min(world_size, batch_size)
    one = batches(3 * batch_size + 1, global_batch_size=batch_size, with_neighbours=True)
    batch = epoch_order(3 * batch_size + 1, 0, epoch)[:batch_size]
    workers = [replace(one, rank=r, world_size=world_size) for r in range(world_size)]
    pieces = [piece for w in workers for piece in steps(replace(w, images_per_device=images_per_device), epoch)[0]]
    assert np.array_equal(np.concatenate([piece[1:] for piece in pieces]), batch)
    assert np.array_equal(np.concatenate([piece[:-1] for piece in pieces]), np.roll(batch, 1))


@pytest.mark.parametrize("first_step", [0, 1, 5, 9, 10])
def test_order_from_mid_epoch_is_the_tail_of_the_plan(first_step):
    worker = batches(105, rank=1, world_size=3, images_per_device=2, with_neighbours=True)
    full, resumed = steps(worker, 7), steps(worker, 7, first_step)
    assert len(resumed) == 10 - first_step
    for ours, theirs in zip(resumed, full[first_step:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_order_leaves_no_image_out_for_ever():
    seen = {i for epoch in range(8) for step in steps(batches(19), epoch) for i in step[0]}
    assert seen == set(range(19))


@given(st.lists(st.integers(0, 40), min_size=2, max_size=8).filter(any), st.integers(0, 99), st.integers(0, 9))
def test_balanced_order_gives_every_class_its_equal_part(sizes, seed, epoch):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = balanced_order(labels, seed, epoch)
    assert len(order) == len(labels)
    counts = np.bincount(labels[order], minlength=len(sizes))[np.array(sizes) > 0]
    assert counts.max() - counts.min() <= 1
    for label in np.flatnonzero(sizes):  # none comes twice more before another has come once more
        times = np.bincount(order[labels[order] == label], minlength=len(labels))[labels == label]
        assert times.max() - times.min() <= 1
    assert np.array_equal(order, balanced_order(labels, seed, epoch))


def test_balanced_order_visits_all_images_over_the_epochs():
    labels = np.array([0] * 30 + [1] * 2)
    seen = np.concatenate([balanced_order(labels, 0, epoch) for epoch in range(12)])
    assert set(seen.tolist()) == set(range(32))
    assert not np.array_equal(balanced_order(labels, 0, 0), balanced_order(labels, 0, 1))


def test_balanced_sampling_finds_rare_defects_that_plain_training_misses(tmp_path):
    """The workers' shares are those of one order, and a run with it learns the rare class."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (340, 16)), ("val", (40, 20))):
        for is_defect, (label, count) in enumerate(zip(("good", "defect"), counts, strict=True)):
            for number in range(count):
                pixels = rng.normal(128, 12, (16, 16))
                if is_defect:
                    y, x = rng.integers(1, 9, 2)
                    pixels[y : y + 5, x : x + 5] -= 40
                path = tmp_path / "data" / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    settings = {"model.name": "resnet8", "model.width": 8, "recipe.epochs": 8, "recipe.global_batch_size": 32}
    settings |= {"output_dir": str(tmp_path / "runs"), "metrics": ["balanced_accuracy"], "data.shift_pixels": 0}
    scores = [
        raytricks.train(tmp_path / "data", settings | {"data.balanced_sampling": on}).last["val_balanced_accuracy"]  # type: ignore[union-attr]
        for on in (False, True)
    ]
    assert scores[1] > 0.8 and scores[1] > scores[0] + 0.1
    assert [finding.code for finding in raytricks.diagnose(tmp_path / "data", settings)] == ["class-imbalance"]
