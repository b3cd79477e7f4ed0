"""Binary cross-entropy against timm's and a closed form, with smoothed and mixed targets in a real step."""

import math

import pytest
from timm.loss import BinaryCrossEntropy
import torch
import torch.nn.functional as F

import raytricks
from raytricks.tricks.binary_cross_entropy import binary_cross_entropy
from raytricks.tricks.label_smoothing import smooth_targets


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_binary_cross_entropy_equals_timm(threshold, epsilon):
    torch.manual_seed(1)
    logits, labels = torch.randn(16, 7), torch.randint(7, (16,))
    targets = smooth_targets(F.one_hot(labels, 7).float(), epsilon, "torch")
    theirs = BinaryCrossEntropy(smoothing=0.0, target_threshold=threshold)
    ours = binary_cross_entropy(logits, targets, threshold)
    assert ours.shape == (16,)
    torch.testing.assert_close(ours.mean(), theirs(logits, targets))


def test_binary_cross_entropy_of_no_knowledge_is_log_2():
    assert float(binary_cross_entropy(torch.zeros(1, 9), torch.zeros(1, 9))) == pytest.approx(math.log(2))


def test_binary_cross_entropy_makes_a_mixed_image_both_of_its_classes():
    mixed = torch.tensor([[0.7, 0.3, 0.0]])
    both = torch.tensor([[50.0, 50.0, -50.0]])
    assert float(binary_cross_entropy(both, mixed, 0.2)) < 1e-6
    assert float(binary_cross_entropy(both, mixed)) > 1


def test_binary_cross_entropy_trains_with_smoothing_and_mixup(tmp_path):
    settings = {"data.source": "digits", "data.horizontal_flip": False, "model.name": "resnet8", "model.width": 8}
    settings |= {"recipe.epochs": 8, "recipe.global_batch_size": 32, "recipe.base_lr": 2.0, "tricks.warmup.epochs": 0.5}
    settings |= {"loss.name": "binary_cross_entropy", "loss.threshold": 0.2, "tricks.mixup.alpha": 0.2}
    result = raytricks.train(None, settings | {"output_dir": str(tmp_path)})
    assert result is not None and result.last["val_top1"] > 0.6  # 10 even classes
    assert 0 < result.last["train_objective"] < math.log(2)
