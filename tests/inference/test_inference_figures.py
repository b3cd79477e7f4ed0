"""Every figure against scikit-learn, the bootstrap against a direct one, and what is undefined."""

import json

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from raytricks.inference.calibration import expected_calibration_error, log_probabilities
from raytricks.inference.figures import figures_of
from raytricks.inference.intervals import UNDEFINED, Estimate, wilson

AVERAGES = ("precision", "recall", "f1")


def sample(num_images=400, num_classes=8, seed=0, signal=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num_images)
    logits = rng.normal(size=(num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), labels] += np.float32(signal)
    return logits, labels


def measure(logits, labels, **settings):
    names = [f"class {index}" for index in range(logits.shape[1])]
    return figures_of(logits, labels, names, **({"num_resamples": 100} | settings))


def one_hot(predictions, num_classes):
    return np.eye(num_classes, dtype=np.float32)[predictions]


@pytest.mark.parametrize("num_classes", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_figures_are_scikit_learns(num_classes, temperature):
    logits, labels = sample(num_classes=num_classes)
    figures, predictions, classes = (
        measure(logits, labels, temperature=temperature),
        logits.argmax(1),
        range(num_classes),
    )
    probabilities = np.exp(log_probabilities(logits, temperature))
    errors = probabilities - np.eye(num_classes)[labels]
    assert figures.top1 == wilson(int((predictions == labels).sum()), 400)
    assert figures.cross_entropy.value == pytest.approx(log_loss(labels, probabilities, labels=classes))
    assert figures.brier.value == pytest.approx((errors**2).sum(1).mean() / 2)
    assert figures.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert figures.confusion.tolist() == confusion_matrix(labels, predictions, labels=classes).tolist()
    assert figures.confusion.dtype == np.int64
    correct = predictions == labels
    assert figures.ece.value == pytest.approx(expected_calibration_error(probabilities.max(1), correct))
    for average in ("macro", "weighted"):
        *expected, _ = precision_recall_fscore_support(labels, predictions, average=average, zero_division=np.nan)
        found = [getattr(figures, f"{average}_{name}").value for name in AVERAGES]
        assert found == pytest.approx(expected)


def test_figures_top5_is_scikit_learns():
    logits, labels = sample(num_classes=12, signal=0.5)
    expected = top_k_accuracy_score(labels, logits, k=5, labels=range(12))
    assert measure(logits, labels).top5.value == pytest.approx(expected)


@pytest.mark.parametrize(("num_classes", "defined"), [(2, False), (5, False), (6, True)])
def test_figures_top5_needs_more_than_5_classes(num_classes, defined):
    logits, labels = sample(num_classes=num_classes)
    assert (measure(logits, labels).top5 is not None) == defined


def test_figures_of_equal_logits_take_the_lowest_index():
    figures = measure(np.zeros((7, 7), dtype=np.float32), np.arange(7))
    assert figures.top1.value == pytest.approx(1 / 7)
    assert figures.top5.value == pytest.approx(5 / 7)
    assert figures.confusion[:, 0].tolist() == [1] * 7


def test_figures_of_a_class_by_scikit_learns():
    logits, labels = sample()
    figures = measure(logits, labels)
    precision, recall, f1, support = precision_recall_fscore_support(labels, logits.argmax(1), zero_division=np.nan)
    assert [part.name for part in figures.classes] == list(figures.class_names)
    assert [part.support for part in figures.classes] == support.tolist()
    assert [part.predicted for part in figures.classes] == figures.confusion.sum(0).tolist()
    assert [part.precision.value for part in figures.classes] == pytest.approx(precision)
    assert [part.recall.value for part in figures.classes] == pytest.approx(recall)
    assert [part.f1.value for part in figures.classes] == pytest.approx(f1)
    hits = int(figures.confusion[3, 3])
    assert figures.classes[3].recall == wilson(hits, figures.classes[3].support)
    assert figures.classes[3].precision == wilson(hits, figures.classes[3].predicted)


def test_figures_of_classes_that_are_not_true_or_not_predicted():
    # Class 0 in order, 1 never predicted, 2 without images, 3 neither.
    labels, predictions = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 2, 0, 2])
    figures = measure(one_hot(predictions, 4), labels)
    normal, unpredicted, imageless, absent = figures.classes
    assert (normal.recall.value, normal.precision.value) == pytest.approx((2 / 3, 2 / 3))
    assert (unpredicted.precision, unpredicted.recall.value, unpredicted.f1.value) == (Estimate(0.0, None, None), 0, 0)
    assert (imageless.precision.value, imageless.recall, imageless.f1.value) == (0, UNDEFINED, 0)
    assert (absent.precision, absent.recall, absent.f1) == (UNDEFINED, UNDEFINED, UNDEFINED)
    assert figures.num_f1_classes == 3
    *_, f1, _ = precision_recall_fscore_support(labels, predictions, labels=range(4), zero_division=np.nan)
    assert figures.macro_f1.value == pytest.approx(np.nanmean(f1))
    precision, *_ = precision_recall_fscore_support(labels, predictions, labels=range(3), zero_division=0)
    assert figures.macro_precision.value == pytest.approx(precision.mean())
    assert figures.macro_recall.value == figures.balanced_accuracy.value == pytest.approx(1 / 3)
    assert figures.weighted_recall.value == pytest.approx(figures.top1.value)


def test_figures_bootstrap_is_a_direct_one():
    logits, labels = sample(num_images=300, num_classes=3)
    figures, rng = measure(logits, labels, num_resamples=2000), np.random.default_rng(1)
    nll = -log_probabilities(logits)[np.arange(300), labels]
    predictions, direct = logits.argmax(1), {"cross_entropy": [], "balanced_accuracy": [], "macro_f1": [], "f1": []}
    for _ in range(1000):
        images = rng.integers(300, size=300)
        confusion = np.bincount(labels[images] * 3 + predictions[images], minlength=9).reshape(3, 3)
        f1 = 2 * np.diag(confusion) / (confusion.sum(0) + confusion.sum(1))
        direct["cross_entropy"].append(nll[images].mean())
        direct["balanced_accuracy"].append((np.diag(confusion) / confusion.sum(1)).mean())
        direct["macro_f1"].append(f1.mean())
        direct["f1"].append(f1[1])
    for name, values in direct.items():
        found = figures.classes[1].f1 if name == "f1" else getattr(figures, name)
        tolerance = 0.3 * np.std(values)
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=tolerance)


def test_figures_intervals_cover_the_truth_about_95_times_of_100():
    everything, names = sample(num_images=20_000, num_classes=3, signal=1.0), ["a", "b", "c"]
    truth = figures_of(*everything, names, num_resamples=1)
    covered = {"cross_entropy": 0, "brier": 0, "balanced_accuracy": 0, "macro_f1": 0, "top1": 0}
    for draw in range(100):
        rows = slice(draw * 200, draw * 200 + 200)
        figures = figures_of(everything[0][rows], everything[1][rows], names, num_resamples=200)
        for name in covered:
            estimate = getattr(figures, name)
            covered[name] += estimate.low <= getattr(truth, name).value <= estimate.high
    assert min(covered.values()) >= 87  # 95 of 100 less 3.5 standard errors


def test_figures_of_the_same_seed_are_the_same_and_another_seed_moves_only_intervals():
    logits, labels = sample()
    first, again, other = (measure(logits, labels, seed=seed) for seed in (0, 0, 1))
    assert first.as_dict() == again.as_dict()
    assert first.macro_f1.value == other.macro_f1.value
    assert first.macro_f1.low != other.macro_f1.low
    assert first.ece.value == other.ece.value
    assert first.ece.null_95 != other.ece.null_95


def test_figures_in_pieces_are_those_in_one_piece(monkeypatch):
    logits, labels = sample()
    whole = measure(logits, labels).as_dict()
    monkeypatch.setattr("raytricks.inference.figures._CHUNK_COUNTS", 8 * 7)
    monkeypatch.setattr("raytricks.inference.calibration._BLOCK_ELEMENTS", 8 * 33)
    assert measure(logits, labels).as_dict() == whole


def test_figures_temperature_moves_probabilities_only():
    logits, labels = sample()
    plain, soft = measure(logits, labels), measure(logits, labels, temperature=4.0)
    assert plain.top1 == soft.top1
    assert plain.top5 == soft.top5
    assert plain.macro_f1 == soft.macro_f1
    assert plain.cross_entropy.value < soft.cross_entropy.value
    assert plain.ece.value != soft.ece.value
    assert soft.temperature == 4.0


def test_figures_of_one_image_and_of_a_perfect_model():
    one = measure(np.array([[0.0, 1.0]], dtype=np.float32), np.array([0]))
    assert (one.top1.value, one.balanced_accuracy) == (0.0, Estimate(0.0, 0.0, 0.0))
    perfect = measure(one_hot(np.arange(6), 6) * 1000, np.arange(6))
    assert perfect.cross_entropy == perfect.brier == Estimate(0.0, 0.0, 0.0)
    assert perfect.macro_f1 == Estimate(1.0, 1.0, 1.0)
    assert (perfect.ece.value, perfect.ece.null_95) == (0.0, 0.0)


def test_figures_as_dict_is_plain_json():
    logits, labels = sample(num_classes=6)
    figures = measure(logits, labels)
    plain = figures.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["top1"] == figures.top1.as_dict()
    assert plain["confusion"] == figures.confusion.tolist()
    assert plain["classes"][2] == figures.classes[2].as_dict()
    assert plain["ece"]["bins"][0].keys() == {"num_images", "mean_confidence", "accuracy"}
    assert "Wilson" in plain["intervals"]
    assert "bootstrap" in plain["intervals"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_names": ["a"]}, "each of the 2 classes, got 1"),
        ({"temperature": 0.0}, "temperature must be > 0 and finite, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be > 0"),
        ({"num_resamples": 0}, "num_resamples must be >= 1, got 0"),
        ({"labels": np.array([2])}, r"labels must lie in 0\.\.1"),
    ],
)
def test_figures_refuse_what_does_not_fit(settings, message):
    arguments = {"logits": np.zeros((1, 2)), "labels": np.array([0]), "class_names": ["a", "b"]} | settings
    with pytest.raises(ValueError, match=message):
        figures_of(**arguments)
