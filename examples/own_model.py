"""A model of your own: any function or class that takes `num_classes` and returns a torch.nn.Module.

    raytricks train data.source=digits model.name=examples/own_model.py:patchy model.width=32 recipe.epochs=5

`in_channels` and `image_size` are handed over where you name them; every other parameter is a setting of the
section `model`, with the type and the default that you give it here.
"""

from torch import nn


def patchy(num_classes: int, in_channels: int, width: int = 16, depth: int = 2) -> nn.Module:
    """Patches of two pixels, then some layers of 3x3 convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 2, stride=2), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
