"""ResNet with the paper's variants A to D, for large and for small images.

Modules carry the names that torchvision (A and B) and timm (C and D: `resnet50c`, `resnet50d`)
give them, so their weights load with strict=True.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import nn

from raytricks.config.schema import ModelConfig
from raytricks.parts.hooks import Hooks

Variant = Literal["A", "B", "C", "D"]
Stem = Literal["imagenet", "small", "small_stride2"]
Norm = Literal["batch", "group"]

SMALL_WIDTH = 16
LARGE_WIDTH = 64
SMALL_IMAGE = 64
"""Pixels; the ImageNet stem destroys images of this side and less."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Build a GroupNorm of the most groups, at most 32, that hold two channels or more each.

    Args:
        channels: C >= 1; the number of groups divides it (64 -> 32, 16 -> 8, 24 -> 12, 7 -> 1).

    Source: Wu & He 2018: 32 groups; two channels at least, since one is InstanceNorm.
    """
    most_groups = max(min(32, channels // 2), 1)
    groups = next(groups for groups in range(most_groups, 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


def _norm_layer(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else group_norm(channels)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int, variant: Variant, norm: Norm) -> nn.Module | None:
    """Build the projection of a block that changes the shape; None where the identity will do."""
    if stride == 1 and in_channels == out_channels:
        return None
    if variant != "D":
        return nn.Sequential(_conv1x1(in_channels, out_channels, stride), _norm_layer(norm, out_channels))
    # A strided 1x1 convolution ignores three quarters of its input; the pooling sees all of it.
    # The Identity keeps timm's indices (downsample.1 and .2) where nothing is pooled.
    pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, _conv1x1(in_channels, out_channels), _norm_layer(norm, out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; variants A and B are the same block."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, variant: Variant, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width, stride)
        self.bn1 = _norm_layer(norm, width)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = _norm_layer(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, width, stride, variant, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(x + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; A strides on the first, B to D on the second."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, variant: Variant, norm: Norm) -> None:
        super().__init__()
        out_channels = width * self.expansion
        first_stride, second_stride = (stride, 1) if variant == "A" else (1, stride)
        self.conv1 = _conv1x1(in_channels, width, first_stride)
        self.bn1 = _norm_layer(norm, width)
        self.conv2 = _conv3x3(width, width, second_stride)
        self.bn2 = _norm_layer(norm, width)
        self.conv3 = _conv1x1(width, out_channels)
        self.bn3 = _norm_layer(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride, variant, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut)


Block = type[BasicBlock] | type[Bottleneck]

# Block and blocks per stage. The depth counts the weighted layers: 6n + 2 for three stages of n.
DEPTHS: dict[str, tuple[Block, tuple[int, ...]]] = {
    "resnet8": (BasicBlock, (1, 1, 1)),
    "resnet14": (BasicBlock, (2, 2, 2)),
    "resnet20": (BasicBlock, (3, 3, 3)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """A residual network of three or four stages; build it with `resnet`.

    Shapes: (N, C, H, W) images -> (N, K) logits.
    """

    def __init__(
        self,
        block: Block,
        blocks_per_stage: Sequence[int],
        *,
        num_classes: int,
        in_channels: int,
        variant: Variant,
        stem: Stem,
        width: int,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.conv1 = _stem_convolution(in_channels, width, variant, stem, norm)
        self.bn1 = _norm_layer(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()
        channels = width
        self.num_stages = len(blocks_per_stage)
        for stage, num_blocks in enumerate(blocks_per_stage):
            blocks = []
            for index in range(num_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(channels, width * 2**stage, stride, variant, norm))
                channels = width * 2**stage * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.num_stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(self.avgpool(x).flatten(1))


def _stem_convolution(in_channels: int, width: int, variant: Variant, stem: Stem, norm: Norm) -> nn.Module:
    """Build what stands before `bn1`: one convolution, or the three of the deep stem."""
    if stem != "imagenet":
        return _conv3x3(in_channels, width, stride=1 if stem == "small" else 2)
    if variant in ("A", "B"):
        return nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False)
    half = width // 2
    return nn.Sequential(
        _conv3x3(in_channels, half, stride=2),
        _norm_layer(norm, half),
        nn.ReLU(inplace=True),
        _conv3x3(half, half),
        _norm_layer(norm, half),
        nn.ReLU(inplace=True),
        _conv3x3(half, width),
    )


def _initialise(module: nn.Module) -> None:
    """Draw the weights of one layer: Kaiming normal, fan out (He K. et al. 2015).

    The paper's text says Xavier, its code Kaiming, as torchvision and timm do. The classifier starts
    near zero (Goyal et al. 2017, section 5.1), so the first loss is log K whatever the width.
    Normalisation layers keep torch's gamma 1 and beta 0.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def default_width(depth_name: str) -> int:
    """Return the usual channels of the first stage: 16 for the three-stage nets, else 64."""
    return SMALL_WIDTH if len(DEPTHS[depth_name][1]) == 3 else LARGE_WIDTH


def default_stem(image_size: int) -> Stem:
    """Return the usual stem for square images of this side, pixels."""
    return "small" if image_size <= SMALL_IMAGE else "imagenet"


def resnet(
    depth_name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    variant: Variant = "D",
    stem: Stem = "imagenet",
    width: int | None = None,
    norm: Norm = "batch",
) -> ResNet:
    """Build a freshly initialised ResNet.

    Args:
        depth_name: a key of DEPTHS; resnet8/14/20 have three stages, the others four.
        num_classes: K >= 1.
        in_channels: C >= 1 of the images.
        variant: A strides on the first 1x1, B on the 3x3; C is B with the deep stem, D is C with the
            average-pooled shortcut. Cumulative, as in the paper's table 5. The deep stem belongs
            to stem "imagenet": with a small stem C equals B.
        stem: imagenet (7x7/2 or 3x3/2, 3x3, 3x3; then a 3x3/2 max pool), small (3x3/1, no pool) or
            small_stride2 (3x3/2, no pool).
        width: channels of the first stage, >= 2; doubled from stage to stage.
        norm: batch, or group (see `group_norm`).

    Raises:
        ValueError: an unknown name or a number out of range.

    Source: He T. et al. 2018, section 4; He K. et al. 2015, section 4.2 for three stages (with
    projection shortcuts here, not zero padding).
    """
    _check_choice("depth_name", depth_name, DEPTHS)
    _check_choice("variant", variant, get_args(Variant))
    _check_choice("stem", stem, get_args(Stem))
    _check_choice("norm", norm, get_args(Norm))
    width = default_width(depth_name) if width is None else width
    _check_minimum("num_classes", num_classes, 1)
    _check_minimum("in_channels", in_channels, 1)
    _check_minimum("width", width, 2)
    block, blocks_per_stage = DEPTHS[depth_name]
    return ResNet(
        block,
        blocks_per_stage,
        num_classes=num_classes,
        in_channels=in_channels,
        variant=variant,
        stem=stem,
        width=width,
        norm=norm,
    )


def _check_choice(argument: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}, got {value!r}")


def _check_minimum(argument: str, number: int, minimum: int) -> None:
    if number < minimum:
        raise ValueError(f"{argument} must be >= {minimum}, got {number}")


def _build(settings: ModelConfig, num_classes: int, in_channels: int, image_size: int) -> ResNet:
    return resnet(
        settings.name or "",
        num_classes=num_classes,
        in_channels=in_channels,
        variant=settings.variant,
        stem=settings.stem or default_stem(image_size),
        width=settings.width,
        norm=settings.norm,
    )


HOOKS = Hooks(build=_build)
