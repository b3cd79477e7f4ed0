"""Balanced accuracy against scikit-learn, on any number of workers, in a run's records."""

import numpy as np
import pytest
from sklearn.metrics import recall_score
import torch

import raytricks
from raytricks.config import load_config
from raytricks.errors import ConfigError
from raytricks.recipe.chain import metrics_of

METRIC = metrics_of(load_config(None, {"metrics": ["balanced_accuracy"]}).config)[0]


def counts(logits: torch.Tensor, labels: torch.Tensor, num_classes: int = 5) -> torch.Tensor:
    return METRIC.counts(logits=logits, labels=labels, num_classes=num_classes)


@pytest.mark.parametrize("seed", range(5))
def test_balanced_accuracy_equals_scikit_learn_however_the_images_are_shared(seed):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.choice(4, 97, p=[0.7, 0.2, 0.07, 0.03]))  # class 4 has no image
    logits = torch.from_numpy(rng.normal(size=(97, 5)))
    expected = recall_score(labels, logits.argmax(1), labels=np.unique(labels), average="macro", zero_division=0)
    assert METRIC.value(counts=counts(logits, labels)) == pytest.approx(expected)
    parts = sum(counts(logits[a:b], labels[a:b]) for a, b in ((0, 31), (31, 31), (31, 97)))
    assert METRIC.value(counts=parts) == pytest.approx(expected)


def test_balanced_accuracy_is_a_half_where_one_of_two_classes_is_never_recognised():
    logits = torch.tensor([[2.0, 0.0]]).expand(10, 2)
    labels = torch.tensor([0] * 9 + [1])
    assert METRIC.value(counts=counts(logits, labels, 2)) == 0.5


def test_balanced_accuracy_is_in_the_records_of_a_run(tmp_path):
    settings = {"data.source": "digits", "model.name": "resnet8", "model.width": 8, "recipe.epochs": 1}
    settings |= {"tricks.warmup.epochs": 0.0, "output_dir": str(tmp_path), "metrics": ["balanced_accuracy"]}
    result = raytricks.train(None, settings)
    assert result is not None
    assert abs(result.last["val_balanced_accuracy"] - result.last["val_top1"]) < 0.05  # ten even classes


def test_unknown_metric_is_refused_before_any_work(tmp_path):
    settings = {"data.source": "digits", "output_dir": str(tmp_path), "metrics": ["balanced_acuracy"]}
    with pytest.raises(ConfigError, match="unknown metric 'balanced_acuracy'.*did you mean balanced_accuracy"):
        raytricks.train(None, settings)
    assert not list(tmp_path.iterdir())
