"""Zero gamma: residual branches start as zero, shortcuts do not."""

import pytest
import torch
from torch import nn
import torchvision

from raytricks.models import resnet
from raytricks.models.resnet import BasicBlock, Bottleneck
from raytricks.tricks.zero_gamma import zero_last_gammas


def tiny(depth_name="resnet8", **settings):
    return resnet(depth_name, num_classes=3, width=4, stem="small", **settings)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("depth_name", ["resnet14", "resnet18", "resnet50"])
def test_zero_gamma_makes_each_block_its_shortcut(depth_name, norm):
    model = tiny(depth_name, norm=norm)
    zeroed = zero_last_gammas(model)
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock | Bottleneck)]
    assert len(zeroed) == len(blocks)
    for block in blocks:
        images = torch.rand(2, block.conv1.in_channels, 4, 4)
        shortcut = images if block.downsample is None else block.downsample(images)
        assert torch.equal(block(images), shortcut.relu())


@pytest.mark.parametrize(
    ("name", "last", "num_blocks"),
    [("resnet18", "bn2", 8), ("resnet50", "bn3", 16), ("resnext50_32x4d", "bn3", 16)],
)
def test_zero_gamma_works_on_torchvision(name, last, num_blocks):
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    zeroed = zero_last_gammas(model)
    assert len(zeroed) == num_blocks
    assert {parameter.split(".")[2] for parameter in zeroed} == {last}
    assert zeroed[:2] == [f"layer1.0.{last}.weight", f"layer1.1.{last}.weight"]


@pytest.mark.parametrize(
    ("name", "last", "num_blocks"),
    [("resnet18", "bn2", 8), ("resnet50d", "bn3", 16), ("seresnet50", "bn3", 16)],
)
def test_zero_gamma_chooses_what_timm_chooses(name, last, num_blocks):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name, zero_init_last=False)
    zeroed = zero_last_gammas(model)
    assert len(zeroed) == num_blocks
    assert {parameter.split(".")[2] for parameter in zeroed} == {last}


def test_zero_gamma_touches_nothing_else():
    model = torchvision.models.resnet18(num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zeroed = zero_last_gammas(model)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == zeroed
    assert not any("downsample" in name for name in zeroed)
    assert all(not model.get_parameter(name).any() for name in zeroed)


def num_learning(model):
    """Count the convolutions that a first step would change."""
    model(torch.randn(4, 3, 8, 8))[:, 0].sum().backward()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return sum(bool(convolution.weight.grad.any()) for convolution in convolutions)


def test_zero_gamma_leaves_the_stem_and_the_shortcuts_learning():
    model = tiny()
    zero_last_gammas(model)
    assert num_learning(model) == 3  # the stem and two projections: the branches wake up a step later
    assert model.conv1.weight.grad.any()


def test_zero_gamma_on_shortcuts_too_would_stop_all_convolutions():
    model = tiny()
    zero_last_gammas(model)
    for name, parameter in model.named_parameters():
        if name.endswith("downsample.2.weight"):
            nn.init.zeros_(parameter)
    assert num_learning(model) == 0
    learning = [name for name, parameter in model.named_parameters() if parameter.grad.any()]
    assert learning == ["fc.bias"]


def test_zero_gamma_is_undone_by_a_later_initialisation():
    model = tiny()
    zeroed = zero_last_gammas(model)
    model.apply(lambda module: module.reset_parameters() if isinstance(module, nn.BatchNorm2d) else None)
    assert all(model.get_parameter(name).all() for name in zeroed)


def test_zero_gamma_finds_nothing_without_residual_blocks():
    with torch.device("meta"):
        model = torchvision.models.vgg11_bn(weights=None)
    assert zero_last_gammas(model) == []


def test_zero_gamma_skips_pre_activation_blocks():
    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.conv1 = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3)
            self.norm2, self.conv2 = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3)
            self.downsample = None

    assert zero_last_gammas(PreActivation()) == []


def test_zero_gamma_names_a_bare_block():
    assert zero_last_gammas(BasicBlock(2, 2, 1, "B", "batch")) == ["bn2.weight"]
