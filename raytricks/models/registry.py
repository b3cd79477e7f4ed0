"""Models by name: the rows of `raytricks.parts.models`, and a user's own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from raytricks.config.schema import ModelConfig
from raytricks.errors import ConfigError
from raytricks.models.cost import count_macs
from raytricks.parts.hooks import wanted_arguments
from raytricks.parts.part import Part
from raytricks.parts.registry import named, of_kind
from raytricks.suggest import as_question, did_you_mean

_UNFIT = (RuntimeError, ValueError, AssertionError)
"""What models raise for images that they cannot take."""


def list_models() -> list[str]:
    """Return the names that `build_model` knows without an extra, ours first; see `list_timm_models`."""
    names: list[str] = []
    for row in of_kind("model"):
        if not row.name.endswith(":"):
            names.append(row.name)
        elif not row.extra and row.hooks is not None and row.hooks.names is not None:
            names += row.hooks.names()
    return names


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
    row = config.part or named("model", name)
    if row is None or not _has(row, name):
        command = f"raytricks models --{row.extra}" if row is not None and row.extra else "raytricks models"
        raise ConfigError(f"model.name: unknown model {name!r}{_hint(name, row)} '{command}' lists all")
    offered = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size, "settings": config}
    if row.is_library_of(name):
        _refuse_resnet_settings(config)
        model = _of_library(row, name, offered)
    else:
        model = _build(row, offered) if config.part is None else _of_user(row, name, offered)
    if config.transform_input is not None and not hasattr(model, "transform_input"):
        raise ConfigError(
            f"model.transform_input is for torchvision:googlenet and inception_v3, got {name}; leave it out"
        )
    return model


def _has(row: Part, name: str) -> bool:
    """Say whether a row that was found by a name can build the model of that name."""
    hooks = row.hooks
    return hooks is not None and hooks.build is not None and (hooks.knows is None or hooks.knows(name))


def _hint(name: str, library: Part | None) -> str:
    """Return what to put after an unknown name: the likely ones, the forgotten prefix included."""
    if library is not None and library.extra:
        return as_question(_alike(library, name)) or ";"
    known = list_models()
    bare_names = {listed.rpartition(":")[2].lower(): listed for listed in known}
    meant = bare_names.get(name.lower())
    hint = as_question([meant]) if meant else did_you_mean(name, known)
    if not hint and name:  # last, since timm takes seconds to import
        hint = as_question([likely for row in of_kind("model") if row.extra for likely in _alike(row, name)])
    return hint or ";"


def _alike(row: Part, name: str) -> list[str]:
    hooks = row.hooks
    return list(hooks.alike(name)) if hooks is not None and hooks.alike is not None else []


def require_sides(model: nn.Module, in_channels: int, sides: Sequence[int]) -> None:
    """Try a model, without arithmetic, on square images of each of these sides, pixels.

    Raises:
        ConfigError: it takes only some of them.
    """
    for side in sides if len(sides) > 1 else ():  # a model was built for images of its one side
        try:
            count_macs(model, (in_channels, side, side))
        except _UNFIT as error:
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


def _build(row: Part, offered: dict[str, Any]) -> nn.Module:
    assert row.hooks is not None and row.hooks.build is not None
    build = row.hooks.build
    return build(**{name: offered[name] for name in wanted_arguments("build", build)})


def _of_library(row: Part, name: str, offered: dict[str, Any]) -> nn.Module:
    """Build a model of a library and try it, without arithmetic, on images of the given size."""
    try:
        model = _build(row, offered)
        count_macs(model, (offered["in_channels"], offered["image_size"], offered["image_size"]))
    except _UNFIT as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"model.name: {name} cannot take images of {offered['image_size']} pixels ({reason}); "
            "raise data.image_size or take one of our ResNets"
        ) from error
    return model


def _of_user(row: Part, name: str, offered: dict[str, Any]) -> nn.Module:
    """Build a model of the user's own and try it; a brought part has its settings in the section of the model."""
    model, shape = _build(row, offered), (offered["in_channels"], offered["image_size"], offered["image_size"])
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.name: {name} returned a {type(model).__name__}; return a torch.nn.Module")
    try:
        count_macs(model, shape)
        answer = _answer(model, shape)
    except _UNFIT as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        size = " x ".join(map(str, shape))
        raise ConfigError(f"model.name: {name} cannot take images of {size} ({reason})") from error
    if answer != (2, offered["num_classes"]):
        raise ConfigError(
            f"model.name: {name} gave {answer} for 2 images of {offered['num_classes']} classes; return (N, K)"
        )
    return model


@torch.no_grad()
def _answer(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a model's answer to two images; its statistics stay as they are."""
    was_training = model.training
    answer = model.eval()(torch.zeros(2, *shape))
    model.train(was_training)
    return tuple(answer.shape) if isinstance(answer, torch.Tensor) else (type(answer).__name__,)  # type: ignore[return-value]
