"""timm's classifiers, `timm:NAME`: an optional extra, imported only when such a name is used (it takes seconds)."""

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import nn

from raytricks.config.schema import ModelConfig
from raytricks.errors import ConfigError
from raytricks.parts.hooks import Hooks, Published
from raytricks.suggest import closest

TIMM = "timm:"


def import_timm(name: str) -> ModuleType:
    """Return the package timm, which the model of this name needs.

    Raises:
        ConfigError: it is not installed.
    """
    timm = _timm()
    if timm is None:
        raise ConfigError(f"model.name: {name} needs timm; pip install 'raytricks[timm]'")
    return timm


def list_timm_models() -> list[str]:
    """Return timm's names, prefixed and without pretrained tags; empty when timm is not installed."""
    timm = _timm()
    if timm is None:
        return []
    return [TIMM + name for name in timm.list_models()]


def is_timm_model(name: str) -> bool:
    """Say whether timm builds this prefixed name, which may end in a tag of its weights (`.a1_in1k`).

    Raises:
        ConfigError: timm is not installed.
    """
    timm = import_timm(name)
    kind = name.removeprefix(TIMM)
    return kind in timm.list_models() or kind in timm.list_models(include_tags=True)


def closest_timm_models(name: str) -> list[str]:
    """Return the prefixed names that look like this one, with or without its prefix; empty without timm."""
    timm = _timm()
    if timm is None:
        return []
    kind = name.removeprefix(TIMM)
    architecture, _, tag = kind.partition(".")
    known = timm.list_models()
    if tag and architecture in known:
        return [TIMM + tagged for tagged in closest(kind, timm.list_models(f"{architecture}.*", include_tags=True))]
    if architecture.lower() in known:
        return [TIMM + architecture.lower()]
    return [TIMM + likely for likely in closest(architecture, known)]


def create_timm_model(
    name: str, *, num_classes: int | None, in_channels: int, image_size: int, pretrained: bool = False
) -> nn.Module:
    """Build a model of timm for square images of the given side.

    Args:
        name: known to `is_timm_model`.
        num_classes: K. None: as many as the published weights have.
        pretrained: with the published weights, whose position embeddings timm resizes to the image.
    """
    timm = import_timm(name)
    kind = name.removeprefix(TIMM)
    published = timm.get_pretrained_cfg(kind)
    options: dict[str, object] = {}
    if published is not None and published.fixed_input_size:  # timm's mark of the models that take img_size
        options["img_size"] = image_size
    return timm.create_model(kind, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **options)


def published(name: str) -> Published:
    """Return what timm publishes for a model; its class names are not timm's to say.

    Raises:
        ConfigError: timm is not installed.
    """
    timm = import_timm(name)
    kind = name.removeprefix(TIMM)
    described = timm.get_pretrained_cfg(kind)
    if described is None:
        return Published(load=None)

    def load(image_size: int) -> Mapping[str, torch.Tensor]:
        model = create_timm_model(name, num_classes=None, in_channels=3, image_size=image_size, pretrained=True)
        return model.state_dict()

    return Published(
        load=load if timm.is_model_pretrained(kind) else None,
        address=f"https://huggingface.co/{described.hf_hub_id}" if described.hf_hub_id else described.url,
        mean=tuple(described.mean),
        std=tuple(described.std),
    )


def _build(settings: ModelConfig, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return create_timm_model(
        settings.name or "", num_classes=num_classes, in_channels=in_channels, image_size=image_size
    )


def _timm() -> ModuleType | None:
    try:
        import timm  # an extra, which takes seconds
    except ImportError:
        return None
    return timm


HOOKS = Hooks(build=_build, names=list_timm_models, knows=is_timm_model, alike=closest_timm_models, published=published)
