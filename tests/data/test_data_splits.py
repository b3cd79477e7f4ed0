"""Holding out a part of the training images."""

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


@pytest.mark.parametrize(("labels", "count"), [([0, 0, 1], 1), ([0, 0, 0], 0)])
def test_hold_out_refuses_a_class_of_fewer_than_two(labels, count):
    with pytest.raises(DataError, match=f"class 'b' has {count} image.*20% out .* add images or give a val/"):
        hold_out(split_of(labels), 0.2, 0, "ab")
