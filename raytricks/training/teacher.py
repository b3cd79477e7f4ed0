"""The teacher of distillation: a finished model that answers the student's own images.

It is no module, so it can become part of neither the student nor its state dict, and its
weights have no gradient. What it sees are the student's inputs, mixed or not, with the
student's normalisation replaced by its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import hashlib
from pathlib import Path
import re

import torch
from torch import Tensor, nn

from raytricks.config.schema import ModelConfig
from raytricks.data.prepared import PreparedData
from raytricks.errors import CheckpointError, ConfigError
from raytricks.inference.model_file import load_model
from raytricks.models.registry import build_model
from raytricks.models.weight_files import locate_weights
from raytricks.models.weights import published_weights, start_from
from raytricks.parts.registry import library_of
from raytricks.recipe.teacher_facts import teacher_facts
from raytricks.tricks.mixed_precision import Precision, autocast

_KEY = "tricks.distillation.teacher"
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as the data's own conversion to gray
# the model's keys in messages of the loader, which the teacher shares with fine-tuning
_KEYS = {"model.init_from": f"{_KEY}_weights", "model.pretrained": _KEY, "model.name": _KEY}
_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a model expects of its input.

    Attributes:
        channels: 1 or 3.
        mean, std: per channel, on the 0..1 scale.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Teacher:
    """A frozen model in evaluation mode.

    Args:
        model: (N, C, S, S) images to (N, K) logits; taken over and changed.
        preprocessing: of the images that the model was trained on.
        inputs: of the images that `logits` will be given.

    Attributes:
        digest: sha256 of the architecture and the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        inputs: Preprocessing,
        *,
        device: torch.device,
        precision: Precision,
        channels_last: bool,
    ) -> None:
        self.digest = content_digest(model)
        self.preprocessing = preprocessing
        self.precision: Precision = precision
        self.device = device
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.eval().requires_grad_(False)
        self.model = model.to(device=device, memory_format=self._layout)  # type: ignore[call-overload]
        self._affine = None if inputs == preprocessing else _affine(inputs, preprocessing, device)

    def logits(self, inputs: Tensor) -> Tensor:
        """Answer a batch.

        Args:
            inputs: (N, C, S, S) float32 on the teacher's device, with the student's normalisation.

        Returns:
            (N, K) float32 without a gradient.
        """
        device_type = "cuda" if self.device.type == "cuda" else "cpu"
        with torch.inference_mode(), autocast(device_type, self.precision):
            logits = self.model(self._adapted(inputs).contiguous(memory_format=self._layout))
        return logits.to(torch.float32, copy=True)  # the copy is a normal tensor, which a loss may save for backward

    def _adapted(self, inputs: Tensor) -> Tensor:
        if self._affine is None:
            return inputs
        scale, shift = self._affine
        scaled = inputs * scale
        is_to_gray = self.preprocessing.channels < inputs.shape[1]
        return (scaled.sum(1, keepdim=True) if is_to_gray else scaled) + shift


def _affine(inputs: Preprocessing, wanted: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the (1, C, 1, 1) scale and shift from one normalisation to another.

    A gray image is repeated by broadcasting. Colour becomes gray in the pixels' scale, of which the
    weights are part: sum over the channels after the scale, then shift.
    """
    mean, std = torch.tensor(inputs.mean, dtype=torch.float64), torch.tensor(inputs.std, dtype=torch.float64)
    if inputs.channels == 3 and wanted.channels == 1:
        luma = torch.tensor(_LUMA, dtype=torch.float64)
        mean, std = (luma * mean).sum(0, keepdim=True), luma * std
    wanted_mean = torch.tensor(wanted.mean, dtype=torch.float64)
    wanted_std = torch.tensor(wanted.std, dtype=torch.float64)
    scale, shift = std / wanted_std, (mean - wanted_mean) / wanted_std
    return tuple(value.float().view(1, -1, 1, 1).to(device) for value in (scale, shift))  # type: ignore[return-value]


def content_digest(model: nn.Module) -> str:
    """Return the sha256 of a model: its layers, and the names, types, shapes and bytes of its state.

    The layers' strides count: ResNet variants A and B differ in nothing else.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        digest.update(f"{name} {type(module).__name__} {getattr(module, 'stride', None)}\n".encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def check_teacher(spec: str, weights: str | None, class_names: Sequence[str]) -> None:
    """Find what is wrong with a teacher before any work is done; reads no weights, needs no network.

    Args:
        spec, weights: as of `load_teacher`.
        class_names: of the data, in the order of the labels.

    Raises:
        ConfigError: no file there, no finished run, or other classes.
    """
    is_published = library_of(spec) is not None
    if weights is not None and not is_published:
        raise ConfigError(
            f"{_KEY}_weights: only a torchvision: or timm: teacher takes a file of weights, got teacher {spec!r}; "
            "leave it out, a run's directory holds its own"
        )
    if weights is not None:
        try:
            locate_weights(weights)
        except ConfigError as error:
            raise ConfigError([_with_own_keys(problem) for problem in error.problems]) from None
    if is_published:
        return
    path = Path(spec).expanduser()
    if not path.exists():
        raise ConfigError(
            f"{_KEY}: {spec!r} does not exist; give a finished run's directory, its model.safetensors, "
            "torchvision:NAME or timm:NAME"
        )
    if path.is_dir() and not (path / "model.safetensors").is_file():
        raise ConfigError(f"{_KEY}: {spec} has no model.safetensors, so it is no finished run; finish it with --resume")
    facts = teacher_facts(spec)
    if facts is not None:
        _require_same_classes(spec, facts.class_names, tuple(class_names))


def load_teacher(
    spec: str,
    *,
    weights: str | None,
    data: PreparedData,
    device: torch.device,
    precision: Precision,
    channels_last: bool,
    sides: Sequence[int] | None = None,
) -> Teacher:
    """Load a teacher and make sure that it can teach this data.

    Args:
        spec: a run's directory or its model.safetensors, torchvision:NAME or timm:NAME.
        weights: file of weights for a torchvision: or timm: teacher. None: the published ones.
        data: what the student is trained on.
        precision: of the student's forward pass.
        sides: of the training images, pixels, rising. None: as the data is evaluated.

    Raises:
        ConfigError: no such teacher, other classes or the same in another order, or it cannot take
            images of the student's size.
        CheckpointError: its file is damaged.

    Source: He et al. 2018, section 5.3.
    """
    check_teacher(spec, weights, data.class_names)
    sides = sides or (data.transform.image_size,)
    if library_of(spec) is not None:
        model, preprocessing = _published(spec, weights, data, sides[-1])
    else:
        model, preprocessing = _finished_run(spec, data)
    transform = data.transform
    inputs = Preprocessing(channels=data.channels, mean=transform.mean, std=transform.std)
    teacher = Teacher(model, preprocessing, inputs, device=device, precision=precision, channels_last=channels_last)
    for side in sorted(set(sides)):
        _require_image_size(teacher, spec, data, side)
    return teacher


def _finished_run(spec: str, data: PreparedData) -> tuple[nn.Module, Preprocessing]:
    try:
        trained = load_model(spec)
    except CheckpointError as error:
        raise CheckpointError(f"{_KEY}: {error}") from None
    _require_same_classes(spec, trained.class_names, data.class_names)
    transform = trained.preprocess.transform
    return trained.model, Preprocessing(channels=trained.channels, mean=transform.mean, std=transform.std)


def _published(spec: str, weights: str | None, data: PreparedData, size: int) -> tuple[nn.Module, Preprocessing]:
    """Build a model of a library for RGB images, with all of its weights, the classifier's too."""
    config = ModelConfig(name=spec, pretrained=weights is None, init_from=weights)
    try:
        model = build_model(config, num_classes=data.num_classes, in_channels=3, image_size=size)
        published = published_weights(spec)
        assert published is not None, "the teacher is of a library"
        if weights is None and published.class_names is not None:
            _require_published_classes(spec, published.class_names, data.class_names)
        start = start_from(model, config, class_names=data.class_names, image_size=size)
    except ConfigError as error:
        raise ConfigError([_with_own_keys(problem) for problem in error.problems]) from None
    if start is None or start.fresh:
        raise ConfigError(
            f"{_KEY}: {weights or spec} knows other classes than the data's {data.num_classes}, or in another order; "
            "take a teacher that was trained on these classes"
        )
    return model, Preprocessing(channels=3, mean=published.mean, std=published.std)


def _with_own_keys(problem: str) -> str:
    for key, own in _KEYS.items():
        problem = problem.replace(key, own)
    return problem if problem.startswith(_KEY) else f"{_KEY}: {problem}"


def _require_published_classes(spec: str, words: tuple[str, ...], ours: tuple[str, ...]) -> None:
    """Compare with ImageNet's words; of WordNet ids, in whose order the words are, only the count."""
    if all(_WORDNET_ID.fullmatch(name) for name in ours) and list(ours) == sorted(ours):
        _require_same_count(spec, len(words), len(ours))
    else:
        _require_same_classes(spec, words, ours)


def _require_same_classes(spec: str, theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
    """Raise for the first class that differs; logits are matched by their position alone."""
    _require_same_count(spec, len(theirs), len(ours))
    for number, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        if their != our:
            how = "the same classes in another order" if sorted(theirs) == sorted(ours) else "other classes"
            raise ConfigError(
                f"{_KEY}: class {number} of {spec} is {their!r}, of the data {our!r} ({how}); "
                "take a teacher that was trained on these classes"
            )


def _require_same_count(spec: str, theirs: int, ours: int) -> None:
    if theirs != ours:
        raise ConfigError(
            f"{_KEY}: {spec} tells {theirs} classes apart, the data has {ours}; "
            "take a teacher that was trained on these classes"
        )


def _require_image_size(teacher: Teacher, spec: str, data: PreparedData, size: int) -> None:
    """Try one image of a side that the student is trained on."""
    try:
        answer = teacher.logits(torch.zeros(1, data.channels, size, size, device=teacher.device))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise _unfit(spec, size, error) from None
    _require_same_count(spec, answer.shape[1], data.num_classes)


def _unfit(spec: str, size: int, error: Exception) -> ConfigError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ConfigError(
        f"{_KEY}: {spec} cannot take the student's images of {size} pixels ({reason}); "
        "change data.image_size or take another teacher"
    )
