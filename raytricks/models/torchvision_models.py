"""torchvision's classifiers, `torchvision:NAME`."""

from collections.abc import Mapping

import torch
from torch import nn
import torchvision

from raytricks.config.schema import ModelConfig
from raytricks.parts.hooks import Hooks, Published

TORCHVISION = "torchvision:"


def list_torchvision_models() -> list[str]:
    """Return torchvision's names, prefixed."""
    return [TORCHVISION + name for name in torchvision.models.list_models(module=torchvision.models)]


def is_torchvision_model(name: str) -> bool:
    """Say whether torchvision builds this prefixed name."""
    return name in list_torchvision_models()


def create_torchvision_model(settings: ModelConfig, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build a freshly initialised model of torchvision for square images of the given side, without auxiliary heads."""
    kind = (settings.name or "").removeprefix(TORCHVISION)
    options: dict[str, object] = {"num_classes": num_classes}
    if kind in ("googlenet", "inception_v3"):
        # Auxiliary heads change the type of the output. The initialisation of these two takes seconds
        # and warns when it is not chosen; without it the layers keep torch's default.
        options |= {"aux_logits": False, "init_weights": False}
    if kind.startswith("vit_"):
        options["image_size"] = image_size
    if kind.startswith("maxvit_"):
        options["input_size"] = (image_size, image_size)
    model = torchvision.models.get_model(kind, weights=None, **options)
    if hasattr(model, "transform_input"):
        model.transform_input = settings.converts_input and in_channels == 3  # type: ignore[assignment]
    if in_channels == 1:
        _accept_gray_images(model)
    return model


def published(name: str) -> Published:
    """Return what torchvision publishes for a model: the newest of its weights."""
    weights = torchvision.models.get_model_weights(name.removeprefix(TORCHVISION))["DEFAULT"]

    def load(image_size: int) -> Mapping[str, torch.Tensor]:
        # The hash in the name is checked when the file is downloaded, not when it is already there.
        return weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)

    trained_with = vars(weights.transforms())
    return Published(
        load=load,
        address=weights.url,
        class_names=tuple(weights.meta["categories"]),
        mean=tuple(trained_with["mean"]),
        std=tuple(trained_with["std"]),
    )


def _accept_gray_images(model: nn.Module) -> None:
    """Give the first convolution one input channel, in place, with its geometry unchanged.

    Its new weights are the sum of the RGB ones, so a gray image gives what the original model
    gives for the same image copied to three channels.
    """
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    first.in_channels = 1
    first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))


HOOKS = Hooks(
    build=create_torchvision_model, names=list_torchvision_models, knows=is_torchvision_model, published=published
)
