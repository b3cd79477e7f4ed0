"""SyncBN keeps what it replaces."""

import pytest
import torch
from torch import nn

from raytricks.models.resnet import resnet
from raytricks.tricks.sync_batch_norm import synchronise_batch_norm


def test_sync_batch_norm_replaces_every_batch_norm_and_keeps_names_and_weights():
    torch.manual_seed(0)
    model = resnet("resnet8", num_classes=3, width=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    model = synchronise_batch_norm(model)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in model.modules()) == count > 5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_sync_batch_norm_evaluates_like_batch_norm():
    torch.manual_seed(0)
    model = resnet("resnet8", num_classes=3, width=8).eval()
    images = torch.randn(2, 3, 16, 16)
    expected = model(images)
    torch.testing.assert_close(synchronise_batch_norm(model)(images), expected)


def test_sync_batch_norm_keeps_the_activations_of_timm_models():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_lite0", num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    model = synchronise_batch_norm(model)
    assert any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    torch.testing.assert_close(model(images), expected)
