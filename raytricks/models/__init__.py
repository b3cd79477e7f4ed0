"""Networks: our ResNet in the paper's variants, torchvision's and timm's classifiers, where they start, their cost."""

from raytricks.models.cost import count_macs, count_parameters
from raytricks.models.registry import build_model, list_models
from raytricks.models.resnet import ResNet, default_stem, default_width, resnet
from raytricks.models.timm_models import list_timm_models
from raytricks.models.weights import Start, check_start, start_from

__all__ = [
    "ResNet",
    "Start",
    "build_model",
    "check_start",
    "count_macs",
    "count_parameters",
    "default_stem",
    "default_width",
    "list_models",
    "list_timm_models",
    "resnet",
    "start_from",
]
