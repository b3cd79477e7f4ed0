"""Models by name: our ResNets, and `torchvision:NAME` and `timm:NAME` for every classifier of those."""

from collections.abc import Sequence

import torch
from torch import nn
import torchvision

from raytricks.config.schema import OWN_MODELS, ModelConfig
from raytricks.errors import ConfigError
from raytricks.models.cost import count_macs
from raytricks.models.resnet import Stem, resnet
from raytricks.models.timm_models import TIMM, closest_timm_models, create_timm_model, is_timm_model
from raytricks.parts.hooks import wanted_arguments
from raytricks.suggest import as_question, did_you_mean

TORCHVISION = "torchvision:"
SMALL_IMAGE = 64


def list_models() -> list[str]:
    """Return the names that `build_model` knows without timm, ours first; see `list_timm_models`."""
    names = torchvision.models.list_models(module=torchvision.models)
    return [*OWN_MODELS, *(TORCHVISION + name for name in names)]


def default_stem(image_size: int) -> Stem:
    """Return the stem for square images of this side: the ImageNet stem destroys 64 pixels and less."""
    return "small" if image_size <= SMALL_IMAGE else "imagenet"


def build_model(config: ModelConfig, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build a freshly initialised model of (N, C, H, W) images to (N, K) logits.

    Args:
        config: `name` is set; a `stem` or `width` of None is chosen here.
        num_classes: K >= 1.
        in_channels: C, 1 or 3.
        image_size: H = W in pixels.

    Raises:
        ConfigError: unknown name, timm missing, a setting that the model does not have, or images too
            small for it.
    """
    name = config.name or ""
    if config.part is not None:
        return _own_model(config, num_classes, in_channels, image_size)
    if not (is_timm_model(name) if name.startswith(TIMM) else name in list_models()):
        command = "raytricks models --timm" if name.startswith(TIMM) else "raytricks models"
        raise ConfigError(f"model.name: unknown model {name!r}{_hint(name)} '{command}' lists all")
    if name.startswith((TORCHVISION, TIMM)):
        _refuse_resnet_settings(config)
        model = _tried_model(name, num_classes, in_channels, image_size)
        if config.pretrained and in_channels == 3 and hasattr(model, "transform_input"):
            # the published weights of GoogLeNet and Inception want 0.5 and 0.5, and convert themselves
            model.transform_input = True  # type: ignore[assignment]
        return model
    return resnet(
        name,
        num_classes=num_classes,
        in_channels=in_channels,
        variant=config.variant,
        stem=config.stem or default_stem(image_size),
        width=config.width,
        norm=config.norm,
    )


def _hint(name: str) -> str:
    """Return what to put after an unknown name: the likely ones, the forgotten prefix included."""
    if name.startswith(TIMM):
        return as_question(closest_timm_models(name)) or ";"
    known = list_models()
    bare_names = {listed.removeprefix(TORCHVISION).lower(): listed for listed in known}
    meant = bare_names.get(name.lower())
    hint = as_question([meant]) if meant else did_you_mean(name, known)
    if not hint and name:  # last, since timm takes seconds to import
        hint = as_question(closest_timm_models(name))
    return hint or ";"


def require_sides(model: nn.Module, in_channels: int, sides: Sequence[int]) -> None:
    """Try a model, without arithmetic, on square images of each of these sides, pixels.

    Raises:
        ConfigError: it takes only some of them.
    """
    for side in sides if len(sides) > 1 else ():  # a model was built for images of its one side
        try:
            count_macs(model, (in_channels, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"data.train_size, data.eval_size: the model cannot take images of {side} pixels "
                f"({str(error).splitlines()[0]}); leave them out or take one of our ResNets"
            ) from error


def _refuse_resnet_settings(config: ModelConfig) -> None:
    """Raise for the settings that `build_model` could only ignore; `variant` has no "not set"."""
    settings = {"stem": config.stem, "width": config.width}
    if config.norm != "batch":
        settings["norm"] = config.norm
    problems = [
        f"model.{key} is for our ResNets, got {value!r} with {config.name}; leave it out"
        for key, value in settings.items()
        if value is not None
    ]
    if problems:
        raise ConfigError(problems)


def _tried_model(name: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build a model of torchvision or timm and try it, without arithmetic, on images of the given size."""
    build = create_timm_model if name.startswith(TIMM) else _torchvision_model
    try:
        model = build(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        count_macs(model, (in_channels, image_size, image_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"model.name: {name} cannot take images of {image_size} pixels ({reason}); "
            "raise data.image_size or take one of our ResNets"
        ) from error
    return model


def _own_model(config: ModelConfig, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build a model of the user's own and try it; a brought part has its settings in the section of the model."""
    assert config.part is not None and config.part.hooks is not None and config.part.hooks.build is not None
    build = config.part.hooks.build
    offered = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size, "settings": config}
    model = build(**{name: offered[name] for name in wanted_arguments("build", build)})
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.name: {config.name} returned a {type(model).__name__}; return a torch.nn.Module")
    try:
        count_macs(model, (in_channels, image_size, image_size))
        answer = _answer(model, in_channels, image_size)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"model.name: {config.name} cannot take images of {in_channels} x {image_size} x {image_size} ({reason})"
        ) from error
    if answer != (2, num_classes):
        raise ConfigError(
            f"model.name: {config.name} gave {answer} for 2 images of {num_classes} classes; return (N, K)"
        )
    return model


@torch.no_grad()
def _answer(model: nn.Module, in_channels: int, image_size: int) -> tuple[int, ...]:
    """Return the shape of a model's answer to two images; its statistics stay as they are."""
    was_training = model.training
    answer = model.eval()(torch.zeros(2, in_channels, image_size, image_size))
    model.train(was_training)
    return tuple(answer.shape) if isinstance(answer, torch.Tensor) else (type(answer).__name__,)  # type: ignore[return-value]


def _torchvision_model(name: str, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    kind = name.removeprefix(TORCHVISION)
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
    if in_channels == 1:
        _accept_gray_images(model)
    return model


def _accept_gray_images(model: nn.Module) -> None:
    """Give the first convolution one input channel, in place, with its geometry unchanged.

    Its new weights are the sum of the RGB ones, so a gray image gives what the original model
    gives for the same image copied to three channels.
    """
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    first.in_channels = 1
    first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))
