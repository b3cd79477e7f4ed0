"""Our ResNet: shapes of every variant, and the same logits as torchvision and timm."""

import pytest
import torch
from torch import nn
import torchvision

from raytricks.models import resnet
from raytricks.models.resnet import DEPTHS, group_norm

VARIANTS = ("A", "B", "C", "D")
STEMS = ("imagenet", "small", "small_stride2")


def randomise_normalisation(model):
    """Give gamma, beta and statistics values that a swapped or skipped layer would show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)


def assert_same_logits(ours, theirs):
    torch.manual_seed(0)
    randomise_normalisation(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("depth_name", DEPTHS)
def test_resnet_every_depth_variant_and_stem_gives_logits(depth_name, stem, variant):
    model = resnet(depth_name, num_classes=7, in_channels=1, variant=variant, stem=stem, width=4)
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 16, 16))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stem", STEMS)
def test_resnet_trains_on_odd_sizes(stem, variant, norm):
    for depth_name, width in (("resnet14", 5), ("resnet50", 4)):
        model = resnet(depth_name, num_classes=3, in_channels=1, variant=variant, stem=stem, width=width, norm=norm)
        model(torch.randn(2, 1, 17, 17)).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("depth_name", ["resnet18", "resnet50"])
def test_resnet_b_equals_torchvision(depth_name):
    theirs = torchvision.models.get_model(depth_name, weights=None, num_classes=5)
    assert_same_logits(resnet(depth_name, num_classes=5, variant="B"), theirs)


@pytest.mark.parametrize(
    ("depth_name", "variant", "timm_name"),
    [
        ("resnet50", "B", "resnet50"),
        ("resnet50", "C", "resnet50c"),
        ("resnet50", "D", "resnet50d"),
        ("resnet18", "D", "resnet18d"),
    ],
)
def test_resnet_variants_equal_timm(depth_name, variant, timm_name):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(timm_name, num_classes=5)
    assert_same_logits(resnet(depth_name, num_classes=5, variant=variant), theirs)


def test_resnet_a_strides_on_the_first_1x1():
    strides = {}
    for variant in ("A", "B"):
        with torch.device("meta"):
            block = resnet("resnet50", num_classes=2, variant=variant).get_submodule("layer2.0")
        strides[variant] = [block.get_submodule(name).stride[0] for name in ("conv1", "conv2")]
    assert strides == {"A": [2, 1], "B": [1, 2]}


def test_resnet_a_and_b_are_the_same_basic_block():
    ours = [resnet("resnet8", num_classes=2, stem="small", width=4, variant=v).eval() for v in ("A", "B")]
    ours[1].load_state_dict(ours[0].state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(ours[0](images), ours[1](images))


def test_resnet_d_shortcut_pools_only_real_pixels():
    model = resnet("resnet8", num_classes=2, stem="small", width=4, variant="D")
    pool = model.get_submodule("layer2.0.downsample.0")
    ones = torch.ones(1, 4, 5, 5)
    torch.testing.assert_close(pool(ones), torch.ones(1, 4, 3, 3))


@pytest.mark.parametrize(("stem", "sides"), [("imagenet", (32, 16)), ("small", (64, 64)), ("small_stride2", (32, 32))])
@pytest.mark.parametrize("variant", ["B", "D"])
def test_resnet_stem_reduces_as_named(stem, sides, variant):
    with torch.device("meta"):
        model = resnet("resnet18", num_classes=2, stem=stem, variant=variant)
        convolved = model.conv1(torch.empty(2, 3, 64, 64))
        pooled = model.maxpool(convolved)
    assert (convolved.shape[-1], pooled.shape[-1]) == sides


@pytest.mark.parametrize("depth_name", DEPTHS)
def test_resnet_depth_counts_weighted_layers(depth_name):
    with torch.device("meta"):
        model = resnet(depth_name, num_classes=2, variant="B")
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([name for name in layers if "downsample" not in name]) == int(depth_name[6:])


@pytest.mark.parametrize(
    ("channels", "groups"), [(64, 32), (2048, 32), (16, 8), (24, 12), (48, 24), (7, 1), (2, 1), (1, 1)]
)
def test_resnet_group_norm_takes_the_most_groups_of_two_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_resnet_group_norm_does_not_depend_on_the_rest_of_the_batch():
    model = resnet("resnet8", num_classes=3, stem="small", width=8, norm="group")
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(model(images)[:1], model(images[:1]))
    assert not list(model.buffers())


def test_resnet_initial_weights_follow_kaiming_fan_out():
    torch.manual_seed(0)
    model = resnet("resnet20", num_classes=10, stem="small", width=32)
    weight = model.get_submodule("layer3.1.conv1").weight
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not model.fc.bias.any()


@pytest.mark.parametrize(
    ("argument", "value"),
    [("variant", "E"), ("stem", "tiny"), ("norm", "layer"), ("width", 1), ("num_classes", 0)],
)
def test_resnet_rejects_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} must be .*got '?{value}"):
        resnet("resnet8", **{"num_classes": 2, argument: value})
    with pytest.raises(ValueError, match="depth_name must be one of resnet8"):
        resnet("resnet9", num_classes=2)
