"""The random numbers of a sample: its own, uniform, the same everywhere."""

import numpy as np
import pytest

from raytricks.data.randomness import sample_uniforms

# computed once with Python's unbounded integers, from the SplitMix64 paper's formula
GOLDEN = [[0.1296456182997474, 0.049920065672091285], [0.8513026201288322, 0.18670452030252627]]
GOLDEN_LARGE = [[0.9024578667958127]]


def test_randomness_has_golden_values():
    assert sample_uniforms(0, 0, np.array([0, 1]), 2).tolist() == GOLDEN
    assert sample_uniforms(2**31 - 1, 119, np.array([1_281_166]), 1).tolist() == GOLDEN_LARGE


def test_randomness_of_a_sample_is_the_same_in_any_batch_and_for_any_number_of_draws():
    samples = np.random.default_rng(0).permutation(5000)[:300]
    whole = sample_uniforms(3, 2, samples, 43)
    parts = [sample_uniforms(3, 2, part, 43) for part in np.array_split(samples, 7)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(whole[:, :3], sample_uniforms(3, 2, samples, 3))
    assert np.array_equal(whole[:, 0], [sample_uniforms(3, 2, samples[[i]], 1)[0, 0] for i in range(300)])


def test_randomness_differs_by_seed_epoch_sample_and_draw():
    draws = [sample_uniforms(seed, epoch, np.arange(50), 8) for seed in range(5) for epoch in range(5)]
    assert len(np.unique(np.stack(draws))) == 5 * 5 * 50 * 8


def test_randomness_of_one_sample_stands_still_for_nothing():
    """(seed, epoch, sample) pairs that add or xor to the same number must not meet."""
    keys = [(a, b, c) for a in range(4) for b in range(4) for c in range(4)]
    first = [sample_uniforms(a, b, np.array([c]), 1)[0, 0] for a, b, c in keys]
    assert len(set(first)) == len(keys)


@pytest.mark.parametrize(
    "draws",
    [
        sample_uniforms(0, 0, np.arange(40_000), 1)[:, 0],
        sample_uniforms(0, 0, np.array([7]), 40_000)[0],
        np.concatenate([sample_uniforms(0, epoch, np.arange(100), 1)[:, 0] for epoch in range(400)]),
        np.concatenate([sample_uniforms(seed, 0, np.arange(100), 1)[:, 0] for seed in range(400)]),
    ],
    ids=["along samples", "along draws", "along epochs", "along seeds"],
)
def test_randomness_is_uniform_and_uncorrelated(draws):
    n = len(draws)
    assert ((draws >= 0) & (draws < 1)).all()
    assert draws.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / n))
    assert draws.var() == pytest.approx(1 / 12, abs=4 * np.sqrt(1 / 180 / n))
    observed = np.bincount((draws * 100).astype(int), minlength=100)
    chi_square = ((observed - n / 100) ** 2 / (n / 100)).sum()
    assert 50 < chi_square < 165  # 99 degrees of freedom: beyond the 1e-4 quantiles on either side
    for lag in (1, 2, 100):
        correlation = np.corrcoef(draws[:-lag], draws[lag:])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(n)


def test_randomness_draws_of_a_sample_are_uncorrelated():
    correlations = np.corrcoef(sample_uniforms(1, 1, np.arange(20_000), 12).T) - np.eye(12)
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)


def test_randomness_of_another_stream_is_unrelated_also_to_another_seed():
    samples, n = np.arange(20_000), 20_000
    plain = {seed: sample_uniforms(seed, 1, samples, 3) for seed in (0, 1, 2)}
    other = sample_uniforms(1, 1, samples, 3, stream=1)
    assert np.array_equal(plain[1], sample_uniforms(1, 1, samples, 3, stream=0))
    for draws in plain.values():
        assert not np.isin(other, draws).any()
        correlations = np.corrcoef(draws.T, other.T)[:3, 3:]
        assert np.abs(correlations).max() < 5 / np.sqrt(n)
