"""Fine-tuning: start a model from published weights or from weights on disk, with a new classifier if need be."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
import re
import sys

import torch
from torch import nn

from raytricks.config.problems import show_value
from raytricks.config.schema import ModelConfig
from raytricks.errors import ConfigError
from raytricks.models.weight_files import Weights, described_model, first_line, read_weights
from raytricks.parts.hooks import Published
from raytricks.parts.registry import library_of

_SHOWN_MISFITS = 3
_CONVERT_INPUT = ("torchvision:googlenet", "torchvision:inception_v3")
_WORDNET_ID = re.compile(r"n\d{8}")
# torchvision still publishes DenseNets and vision transformers under names that its models gave up.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=\d\.)"), r"\1"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
_AUXILIARY_HEADS = ("AuxLogits.", "aux1.", "aux2.")


@dataclass(frozen=True)
class Start:
    """What a model starts from.

    Attributes:
        source: the file, or whose published weights, for the user to read.
        fresh: names of the tensors that kept their initialisation: all of the classifier's, or none.
    """

    source: str
    fresh: tuple[str, ...]


def check_start(config: ModelConfig) -> None:
    """Find what is wrong with `model.pretrained` or `model.init_from` before any work is done.

    Reads no weights and needs no network.

    Raises:
        ConfigError: no file there, a file of another kind, or a model without published weights.
    """
    if config.init_from is not None:
        _require_same_network(config, described_model(config.init_from) or {})
    if not config.pretrained:
        return
    name = config.name or ""
    found = published_weights(name)
    if found is None:
        raise ConfigError(
            "model.pretrained: our ResNets have no published weights; give a file of weights as model.init_from, "
            "or set model.name=torchvision:resnet50"
        )
    if found.load is None:
        raise ConfigError(
            f"model.pretrained: {name.partition(':')[0]} has no published weights for {name}; "
            "give a file of weights as model.init_from, or take another model"
        )


def _require_same_network(config: ModelConfig, stored: Mapping[str, object]) -> None:
    """Compare with what a file of ours says of its network: the shapes alone do not tell all of it.

    Raises:
        ConfigError: with a line for each setting that would give other logits.
    """
    if stored.get("name") != config.name:
        return  # two names for one network, or shapes that will not fit
    wanted: dict[str, object] = {"variant": config.variant, "stem": config.stem, "norm": config.norm}
    if config.name in _CONVERT_INPUT:
        wanted = {"transform_input": config.converts_input}
        stored = {"transform_input": stored.get("pretrained"), **{k: v for k, v in stored.items() if v is not None}}
    problems = [
        f"model.init_from: {config.init_from} was trained with {key} {_plain(stored[key])}, this model has "
        f"{_plain(value)}; set model.{key}={_plain(stored[key])} or take other weights"
        for key, value in wanted.items()
        if value is not None and stored.get(key) is not None and stored[key] != value
    ]
    if problems:
        raise ConfigError(problems)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else show_value(value)


def published_weights(name: str) -> Published | None:
    """Return what a library publishes for its model of this name; None for a model that is of no library.

    Raises:
        ConfigError: the library is not installed.
    """
    library = library_of(name)
    if library is None or library.hooks is None or library.hooks.published is None:
        return None
    return library.hooks.published(name)


def start_from(model: nn.Module, config: ModelConfig, *, class_names: Sequence[str], image_size: int) -> Start | None:
    """Load the weights that the config names into the model, in place; None when it names none.

    The classifier stays as it is when the weights are for another number of classes, for other
    classes or the same in another order (where both lists are known), or have no classifier. All
    else must be there in the same shape. Weights for RGB fit a model of gray images: the kernel of the
    first convolution is summed over its channels, so a gray image gives what its RGB copy gave.
    Do not apply zero gamma afterwards.

    Args:
        model: from `build_model` with this config, on the CPU.
        class_names: K names in the order of the logits.
        image_size: H = W in pixels.

    Raises:
        ConfigError: as `check_start`; the file is damaged or holds more than tensors; the weights belong
            to another architecture; or published ones cannot be downloaded.
    """
    check_start(config)
    if config.init_from is not None:
        weights, key, source = read_weights(config.init_from), "model.init_from", config.init_from
    elif config.pretrained:
        assert config.name is not None
        weights, key = _download(config.name, image_size), "model.pretrained"
        source = f"published weights of {config.name}"
        if all(_WORDNET_ID.fullmatch(name) for name in class_names):
            weights = Weights(weights.tensors)  # ImageNet's folders are no words, but in the weights' order
    else:
        return None
    own = model.state_dict()
    tensors = _adapted(weights.tensors, own)
    classifier = _classifier_tensors(model)
    are_same_classes = weights.class_names is None or list(weights.class_names) == list(class_names)
    is_kept = are_same_classes and _have_same_number(tensors, own, classifier)
    fresh = () if is_kept else tuple(classifier)
    problems = _misfits(tensors, own, fresh)
    if problems:
        shown = ", ".join(problems[:_SHOWN_MISFITS])
        raise ConfigError(
            f"{key}: {source} does not fit {config.name} for images of {image_size} pixels: {len(problems)} of "
            f"{len(own)} tensors, first {shown}; the architecture, data.channels and, for transformers, "
            "data.image_size must be those of the weights"
        )
    with torch.no_grad():
        for name in own.keys() & tensors.keys() - set(fresh):
            own[name].copy_(tensors[name])
    return Start(source, fresh)


def _download(name: str, image_size: int) -> Weights:
    found = published_weights(name)
    assert found is not None and found.load is not None, "check_start has looked"
    try:
        # torch.hub announces a download on stdout, which belongs to the command's result
        with redirect_stdout(sys.stderr):
            return Weights(found.load(image_size), found.class_names)
    except Exception as error:  # urllib, http.client, pickle and the client of Hugging Face each have their own
        raise ConfigError(
            f"model.pretrained: the weights of {name} cannot be loaded ({first_line(error)}); "
            f"download {found.address} elsewhere and give the file as model.init_from"
        ) from None


def _adapted(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors under the model's names and, where it takes gray images, for one channel."""
    adapted = {}
    for name, tensor in tensors.items():
        if name not in own:
            if name.startswith(_AUXILIARY_HEADS):
                continue
            for pattern, replacement in _OLD_NAMES:
                name = pattern.sub(replacement, name)
        if name in own and _is_gray_of(own[name], tensor):
            tensor = tensor.float().sum(1, keepdim=True)
        adapted[name] = tensor
    return adapted


def _is_gray_of(gray: torch.Tensor, color: torch.Tensor) -> bool:
    """Say whether these are (O, 1, H, W) and (O, 3, H, W) kernels of the same convolution."""
    is_kernel = gray.ndim == color.ndim == 4
    return is_kernel and color.shape[1] == 3 and gray.shape == (color.shape[0], 1, *color.shape[2:])


def _classifier_tensors(model: nn.Module) -> list[str]:
    """Return the names of the tensors of the layer that gives the logits, or layers (timm's distilled ones)."""
    described = getattr(model, "default_cfg", None) or {}
    layers = described.get("classifier")
    if layers is None:
        layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    prefixes = tuple(f"{layer}." for layer in ([layers] if isinstance(layers, str) else layers))
    return [name for name in model.state_dict() if name.startswith(prefixes)]


def _have_same_number(
    tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], classifier: Sequence[str]
) -> bool:
    """Say whether both classifiers have the same number of classes; False where the weights have none."""
    return all(name in tensors and tensors[name].shape[:1] == own[name].shape[:1] for name in classifier)


def _misfits(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], fresh: Sequence[str]) -> list[str]:
    """Describe each tensor that is missing, unexpected or of another shape, outside a fresh classifier."""
    problems = []
    for name, tensor in own.items():
        if name in fresh:
            continue
        if name not in tensors:
            if not name.endswith(".num_batches_tracked"):  # old state dicts lack it; only a count
                problems.append(f"{name} (missing)")
        elif tensors[name].shape != tensor.shape:
            problems.append(f"{name} (shape {list(tensors[name].shape)}, not {list(tensor.shape)})")
    return problems + [f"{name} (not in the model)" for name in tensors if name not in own]
