"""The finished model: weights, architecture, class names and preprocessing in one safetensors file."""

from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
import torch

from raytricks.config.run_code import model_section
from raytricks.config.schema import ModelConfig
from raytricks.data.augmentation import Transform
from raytricks.data.prepared import PreparedData
from raytricks.errors import CheckpointError, ConfigError
from raytricks.files import sync_directory
from raytricks.models.registry import build_model
from raytricks.parts.bring import describe

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TrainedModel:
    """A model read from its file, in evaluation mode on the CPU.

    Attributes:
        model: (N, C, S, S) normalised images to (N, K) logits.
        transform: normalisation and evaluation crop.
    """

    model: torch.nn.Module
    class_names: tuple[str, ...]
    channels: int
    transform: Transform
    metrics: dict[str, float]


def save_model(
    path: Path,
    state_dict: dict[str, torch.Tensor],
    config: ModelConfig,
    data: PreparedData,
    metrics: dict[str, float],
) -> None:
    """Write the model file atomically; needs no pickle to read.

    Raises:
        CheckpointError: the disk is full or not writable; an older file is untouched.
    """
    metadata = {
        "format": f"raytricks-model-{FORMAT_VERSION}",
        "model": config.model_copy(update={"transform_input": _decided(config, data.channels)}).model_dump_json(),
        "parts": json.dumps([asdict(part) for part in describe([config.part] if config.part else [])]),
        "class_names": json.dumps(data.class_names),
        "channels": json.dumps(data.channels),
        "transform": json.dumps(asdict(data.transform)),
        "metrics": json.dumps(metrics),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    owners = {value.untyped_storage().data_ptr(): name for name, value in tensors.items()}
    for name, value in tensors.items():  # tied weights are written under each of their names
        if owners[value.untyped_storage().data_ptr()] != name:
            tensors[name] = value.clone()
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        save_file(tensors, temporary, metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except (SafetensorError, OSError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: the model cannot be written ({error}); make room and resume, the last checkpoint is kept"
        ) from error


def _decided(config: ModelConfig, channels: int) -> bool | None:
    """Return `transform_input` as the model was trained with it; None where it has none or takes gray images."""
    has_one = config.name in ("torchvision:googlenet", "torchvision:inception_v3") and channels == 3
    return config.converts_input if has_one else None


def load_model(path: str | Path, *, trust_code: bool = False) -> TrainedModel:
    """Read a `model.safetensors` of ours.

    Args:
        path: the file, or the directory of a finished run.
        trust_code: import the model's own code, where its file names some, though this user has neither trained it
            nor said `raytricks trust RUN`.

    Raises:
        CheckpointError: missing, damaged, a pickle, or not written by raytricks.
        ConfigError: it names code that is not trusted, is gone or has changed; nothing was imported.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such model file; a finished run has a model.safetensors") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file that can be read ({error})") from None
    if metadata.get("format") != f"raytricks-model-{FORMAT_VERSION}":
        raise CheckpointError(f"{path}: not a model of this version of raytricks (format {metadata.get('format')!r})")
    section = model_section(metadata, path, trust_code=trust_code)
    try:
        return _restore(metadata, tensors, section)
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: its description and its weights do not belong together ({reason}); copy the file again"
        ) from None


def _restore(metadata: dict[str, str], tensors: dict[str, torch.Tensor], section: type[ModelConfig]) -> TrainedModel:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(metadata["transform"]).items()
    }
    fields.pop("stored_side", None)  # in files of early versions: evaluation images were resized twice
    transform = Transform(**fields)
    class_names, channels = tuple(json.loads(metadata["class_names"])), json.loads(metadata["channels"])
    config = section.model_validate_json(metadata["model"])
    model = build_model(config, num_classes=len(class_names), in_channels=channels, image_size=transform.image_size)
    own = model.state_dict()  # with its version notes, which a safetensors file has not
    if own.keys() != tensors.keys():
        raise KeyError(f"tensors {sorted(own.keys() ^ tensors.keys())[:3]}")
    own.update(tensors)
    model.load_state_dict(own)
    return TrainedModel(model.eval(), class_names, channels, transform, json.loads(metadata["metrics"]))
