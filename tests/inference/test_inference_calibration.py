"""The temperature against a grid and against torch; the calibration error against a slow, direct one."""

import math

import numpy as np
import pytest
import torch

from raytricks.inference.calibration import (
    TEMPERATURE_RANGE,
    calibration_of,
    expected_calibration_error,
    fit_temperature,
    log_probabilities,
    mean_nll,
    row_blocks,
)


def sample(num_images=600, num_classes=7, temperature=1.0, seed=0):
    """Return logits that are off by the temperature, and labels drawn from the right probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(num_images, num_classes)).astype(np.float32)
    probabilities = np.exp(log_probabilities(logits))
    labels = (probabilities.cumsum(axis=1) < rng.random((num_images, 1))).sum(axis=1)
    return logits * np.float32(temperature), labels.clip(max=num_classes - 1)


def slow_calibration_error(confidence, correct, num_bins):
    """Fill bins one image at a time, an image of the confidence just before it joining that one's bin."""
    pairs = sorted(zip(confidence.tolist(), correct.tolist(), strict=True), key=lambda pair: pair[0])
    bins, share = [[]], 1
    for index, pair in enumerate(pairs):
        full = index >= math.ceil(share * len(pairs) / num_bins)
        if full and pair[0] != pairs[index - 1][0]:
            bins.append([])
            while index >= math.ceil(share * len(pairs) / num_bins):
                share += 1
        bins[-1].append(pair)
    gaps = [abs(sum(right for _, right in part) - sum(sure for sure, _ in part)) for part in bins]
    return sum(gaps) / len(pairs)


def test_log_probabilities_is_torchs_in_float64_and_survives_huge_logits():
    logits = np.array([[1e30, -1e30, 0.0], [1.0, 2.0, 3.0], [-3e38, -3e38, 3e38]], dtype=np.float32)
    expected = torch.log_softmax(torch.from_numpy(logits).double() / 2.5, dim=1).numpy()
    np.testing.assert_allclose(log_probabilities(logits, 2.5), expected, rtol=1e-12)


def test_row_blocks_covers_every_row_once_in_bounded_pieces():
    blocks = list(row_blocks(10_000, 1_000))
    assert np.concatenate([np.arange(10_000)[rows] for rows in blocks]).tolist() == list(range(10_000))
    assert len(blocks) > 1


def test_mean_nll_is_torchs_cross_entropy():
    logits, labels = sample()
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double() / 3, torch.from_numpy(labels))
    assert mean_nll(logits, labels, 3.0) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.4, 1.7, 6.0])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_fit_temperature_is_the_best_of_a_grid(temperature, num_classes):
    logits, labels = sample(temperature=temperature, num_classes=num_classes)
    grid = np.exp(np.linspace(*np.log(TEMPERATURE_RANGE), 1201))
    best = min(grid, key=lambda value: mean_nll(logits, labels, value))
    fit = fit_temperature(logits, labels)
    assert fit.temperature == pytest.approx(best, rel=0.006)
    assert fit.nll_after <= mean_nll(logits, labels, best) < fit.nll_before
    assert fit.nll_after == mean_nll(logits, labels, fit.temperature)
    assert fit.num_images == 600


def test_fit_temperature_is_torchs_lbfgs():
    logits, labels = sample(temperature=2.5)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        scaled = torch.from_numpy(logits).double() / log_temperature.exp()
        loss = torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, labels).temperature == pytest.approx(log_temperature.exp().item(), rel=1e-3)


def test_fit_temperature_stops_at_an_end_of_its_range():
    right = np.eye(4, dtype=np.float32)
    assert fit_temperature(right, np.arange(4)).temperature == TEMPERATURE_RANGE[0]
    assert fit_temperature(right * 50, (np.arange(4) + 1) % 4).temperature == TEMPERATURE_RANGE[1]


def test_fit_temperature_takes_one_image():
    fit = fit_temperature(np.array([[2.0, 1.0]], dtype=np.float32), np.array([0]))
    assert fit.nll_after <= fit.nll_before
    assert fit.num_images == 1


@pytest.mark.parametrize("logits", [[[0.0, 0.0]] * 3, [[900.0, 0.0]] * 3])
def test_fit_temperature_stays_1_unless_the_nll_falls(logits):
    # Nothing to gain: the same probabilities at every temperature, and an NLL of exactly 0 already.
    fit = fit_temperature(np.array(logits, dtype=np.float32), np.zeros(3, dtype=np.int64))
    assert fit.temperature == 1.0
    assert fit.nll_after == fit.nll_before


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3)), np.zeros(3, int), r"\(N, K\)"),
        (np.zeros(3), np.zeros(3, int), r"\(N, K\)"),
        (np.zeros((0, 3)), np.zeros(0, int), "at least one image"),
        (np.zeros((2, 3)), np.zeros(2), "labels must be integers, got float64"),
        (np.zeros((2, 3)), np.array([0, 3]), r"0\.\.2, got 0\.\.3"),
        (np.zeros((2, 3)), np.array([-1, 0]), r"0\.\.2, got -1\.\.0"),
        (np.array([[0.0, np.nan], [1.0, 2.0]]), np.zeros(2, int), "those of 1 of 2 images"),
        (np.array([[0.0, np.inf], [1.0, -np.inf]]), np.zeros(2, int), "those of 2 of 2 images"),
    ],
)
def test_fit_temperature_refuses_what_does_not_fit(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("num_bins", [1, 4, 15])
@pytest.mark.parametrize("decimals", [1, 2, 15])
@pytest.mark.parametrize("num_images", [1, 10, 157, 600])
def test_expected_calibration_error_is_the_slow_one(num_bins, decimals, num_images):
    rng = np.random.default_rng(num_images)
    confidence = rng.beta(4, 1, size=num_images).round(decimals)  # few decimals: many equal values
    correct = rng.random(num_images) < confidence**2
    expected = slow_calibration_error(confidence, correct, num_bins)
    assert expected_calibration_error(confidence, correct, num_bins) == pytest.approx(expected, abs=1e-12)


def test_expected_calibration_error_by_hand():
    confidence = np.array([0.6, 0.9, 0.6, 0.9])
    correct = np.array([True, True, False, True])  # 0.5 against 0.6, 1.0 against 0.9
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.1)


def test_calibration_bins_hold_equal_shares_and_never_split_equal_values():
    confidence = np.random.default_rng(3).random(1500)
    calibration = calibration_of(confidence, confidence > 0.5, rng=np.random.default_rng(0), num_draws=2)
    assert [part.num_images for part in calibration.bins] == [100] * 15
    same = calibration_of(np.full(40, 0.75), np.arange(40) < 10, rng=np.random.default_rng(0), num_draws=2)
    assert [(part.num_images, part.mean_confidence, part.accuracy) for part in same.bins] == [(40, 0.75, 0.25)]
    assert same.value == 0.5


def test_calibration_null_is_the_error_of_a_perfectly_calibrated_model():
    rng = np.random.default_rng(4)
    confidence = rng.beta(6, 0.75, size=1000)  # 89% right
    calibration = calibration_of(confidence, rng.random(1000) < confidence, rng=rng, num_draws=300)
    errors = [expected_calibration_error(confidence, rng.random(1000) < confidence) for _ in range(300)]
    assert calibration.null_mean == pytest.approx(np.mean(errors), abs=0.001)
    assert calibration.null_95 == pytest.approx(np.quantile(errors, 0.95), abs=0.002)
    assert 0.015 < calibration.null_mean < 0.03


def test_calibration_null_is_exceeded_by_a_model_that_is_too_sure():
    rng = np.random.default_rng(5)
    confidence = rng.beta(6, 0.75, size=1000)
    calibration = calibration_of(confidence, rng.random(1000) < confidence - 0.1, rng=rng, num_draws=100)
    assert calibration.value > calibration.null_95 > calibration.null_mean


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        (np.zeros(0), np.zeros(0, bool), "at least one image"),
        (np.zeros(2), np.zeros(3, bool), r"\(2,\) and \(3,\)"),
        (np.array([0.5, 1.5]), np.zeros(2, bool), r"0\.\.1, got 0\.5\.\.1\.5"),
        (np.array([0.5, np.nan]), np.zeros(2, bool), r"0\.\.1"),
    ],
)
def test_expected_calibration_error_refuses_what_does_not_fit(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(confidence, correct)


def test_expected_calibration_error_refuses_no_bins():
    with pytest.raises(ValueError, match="bins must be >= 1, got 0"):
        expected_calibration_error(np.array([0.5]), np.array([True]), bins=0)
