"""Holding out a part of the training images."""

import time

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from raytricks.data.splits import ArrayImages, FileImages, Split, hold_out
from raytricks.errors import DataError


def split_of(labels) -> Split:
    """Return images whose only pixel is their number."""
    labels = np.asarray(labels)
    return Split(labels, ArrayImages(np.arange(len(labels), dtype=np.uint8)[:, None, None, None]), "train")


def numbers(split: Split) -> list[int]:
    assert isinstance(split.images, ArrayImages)
    return split.images.pixels[:, 0, 0, 0].tolist()


@given(
    st.lists(st.integers(2, 20), min_size=2, max_size=6),
    st.floats(0.001, 0.999),
    st.integers(0, 2**31 - 1),
)
def test_hold_out_is_stratified_disjoint_and_complete(sizes, fraction, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    kept, taken = hold_out(split_of(labels), fraction, seed, "abcdef"[: len(sizes)])
    assert sorted(numbers(kept) + numbers(taken)) == list(range(len(labels)))
    assert np.array_equal(kept.labels, labels[numbers(kept)])
    assert np.array_equal(taken.labels, labels[numbers(taken)])
    kept_sizes, taken_sizes = (np.bincount(s.labels, minlength=len(sizes)) for s in (kept, taken))
    assert (kept_sizes >= 1).all()
    assert (taken_sizes >= 1).all()
    expected = np.clip(np.round(fraction * np.array(sizes)), 1, np.array(sizes) - 1)
    assert np.array_equal(taken_sizes, expected)


def test_hold_out_is_drawn_from_the_seed():
    split = split_of(np.arange(200) % 4)
    taken = [numbers(hold_out(split, 0.2, seed, "abcd")[1]) for seed in (0, 0, 1)]
    assert taken[0] == taken[1]
    assert taken[0] != taken[2]


def test_hold_out_takes_every_image_equally_often():
    split = split_of([0] * 10 + [1] * 10)
    counts = np.bincount([i for seed in range(500) for i in numbers(hold_out(split, 0.3, seed, "ab")[1])])
    assert np.abs(counts - 150).max() < 5 * np.sqrt(150 * 0.7)


def test_hold_out_keeps_files_sizes_and_labels_together():
    names = tuple(f"{i}.png" for i in range(20))
    images = FileImages(names, np.arange(20) + 100, np.arange(20) + 200, True)
    for part in hold_out(Split(np.arange(20) % 2, images, "train"), 0.3, 0, "ab"):
        assert isinstance(part.images, FileImages)
        rows = [int(path.removesuffix(".png")) for path in part.images.paths]
        assert part.images.heights.tolist() == [100 + i for i in rows]
        assert part.images.widths.tolist() == [200 + i for i in rows]
        assert part.labels.tolist() == [i % 2 for i in rows]
        assert part.images.is_grayscale


def test_hold_out_leaves_classes_of_one_image_in_train():
    kept, taken = hold_out(split_of([0, 0, 1, 3, 3, 3]), 0.3, 0, "abcd")
    assert sorted(kept.labels.tolist()) == [0, 1, 3, 3]
    assert sorted(taken.labels.tolist()) == [0, 3]
    assert taken.origin == "33.3% held out of train"


def test_hold_out_says_the_fraction_that_happened():
    _, taken = hold_out(split_of(np.arange(60) % 30), 0.2, 0, [str(i) for i in range(30)])
    assert (len(taken), taken.origin) == (30, "50% held out of train")


def test_hold_out_refuses_classes_of_one_image_each():
    with pytest.raises(DataError, match="no class, such as 'a', has more than one image: nothing can be held out"):
        hold_out(split_of([0, 1, 2]), 0.2, 0, "abc")


def test_hold_out_time_does_not_grow_with_images_times_classes():
    labels = np.random.default_rng(0).integers(0, 20_000, 400_000)
    images = FileImages(("",) * len(labels), np.ones(len(labels)), np.ones(len(labels)), True)
    started_s = time.perf_counter()
    hold_out(Split(labels, images, "train"), 0.2, 0, [""] * 20_000)
    assert time.perf_counter() - started_s < 5  # a pass over all images for each class: 8 s and more


@given(st.lists(st.integers(1, 12), min_size=6, max_size=30), st.floats(0.05, 0.6), st.integers(0, 2**31 - 1))
def test_hold_out_tears_no_group_apart_and_empties_no_class(sizes, fraction, seed):
    groups = tuple(f"g{number}" for number, size in enumerate(sizes) for _ in range(size))
    labels = np.array([int(group[1:]) % 2 for group in groups])
    whole = Split(labels, split_of(labels).images, "train", groups)
    kept, taken = hold_out(whole, fraction, seed, "ab")
    assert not set(kept.groups or ()) & set(taken.groups or ())
    assert sorted((*(kept.groups or ()), *(taken.groups or ()))) == sorted(groups)
    assert set(kept.labels) == {0, 1}
    for split in (kept, taken):
        assert split.groups == tuple(groups[i] for i in numbers(split))
        assert split.labels.tolist() == labels[numbers(split)].tolist()
    assert taken.origin.endswith(f"held out of train, {len(set(taken.groups or ()))} of {len(sizes)} groups")


def test_hold_out_of_groups_comes_near_the_fraction_in_every_class():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 200)
    groups = tuple(f"g{number}" for number, size in enumerate(sizes) for _ in range(size))
    labels = np.repeat(rng.integers(0, 4, 200), sizes)
    images = FileImages(groups, np.ones(len(groups)), np.ones(len(groups)), True)
    for seed in range(5):
        _, taken = hold_out(Split(labels, images, "train", groups), 0.2, seed, "abcd")
        assert np.bincount(taken.labels) / np.bincount(labels) == pytest.approx([0.2] * 4, abs=0.03)


def test_hold_out_refuses_a_single_group():
    labels = np.array([0, 0, 1, 1])
    with pytest.raises(DataError, match="has more than one group"):
        hold_out(Split(labels, split_of(labels).images, "train", ("g",) * 4), 0.2, 0, "ab")
