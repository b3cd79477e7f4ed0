"""Networks: our ResNet in the paper's variants, torchvision's classifiers, and what they cost."""

from raytricks.models.cost import count_macs, count_parameters
from raytricks.models.registry import build_model, default_stem, list_models
from raytricks.models.resnet import ResNet, default_width, resnet

__all__ = [
    "ResNet",
    "build_model",
    "count_macs",
    "count_parameters",
    "default_stem",
    "default_width",
    "list_models",
    "resnet",
]
