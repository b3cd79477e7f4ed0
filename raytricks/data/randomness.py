"""Random numbers that depend on (seed, epoch, sample) alone.

A counter-based generator: the same sample gets the same draws on any worker, in any batch,
and after a resume, and a whole batch is drawn at once.
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _scramble(state: np.ndarray) -> np.ndarray:
    """Finalise 64-bit counters so that neighbouring ones look unrelated (SplitMix64, Steele 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def sample_uniforms(seed: int, epoch: int, samples: np.ndarray, num_draws: int, stream: int = 0) -> np.ndarray:
    """Draw `num_draws` uniforms in [0, 1) for each sample.

    Args:
        seed: in [0, 2**32).
        samples: (N,) global sample numbers.
        stream: in [0, 2**32); another one gives unrelated draws, also of another seed's.

    Returns:
        (N, num_draws) float64; row i depends on (seed, stream, epoch, samples[i]) and nothing else.
    """
    with np.errstate(over="ignore"):  # 64-bit wrap-around is the arithmetic meant here
        key = _scramble(np.array([seed + (stream << 32)], np.uint64) + _GOLDEN)
        key = _scramble((key ^ np.uint64(epoch)) + _GOLDEN)
        rows = _scramble((key ^ samples.astype(np.uint64)) + _GOLDEN)
        steps = np.arange(1, num_draws + 1, dtype=np.uint64) * _GOLDEN
        bits = _scramble(rows[:, None] + steps[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def stream_of(name: str) -> int:
    """Return the stream of a part, in [0, 2**32): its draws depend on its name and on no other part."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def step_generator(seed: int, step: int, name: str) -> np.random.Generator:
    """Return a part's generator of one step, equal on every worker and after a resume.

    Args:
        seed: the run's seed, >= 0.
        step: number of the update, >= 0.
    """
    return np.random.default_rng((seed, step, stream_of(name)))
