"""The finished model in one safetensors file: weights, architecture, class names, preprocessing, temperature.

docs/model-file.md says what stands in it. Nothing in it is ever unpickled.
"""

from collections.abc import Mapping
from dataclasses import asdict
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
import torch
from torch import Tensor

from raytricks.config.run_code import model_section
from raytricks.config.schema import ModelConfig
from raytricks.data.augmentation import Transform
from raytricks.data.evaluation_input import EvaluationInput
from raytricks.data.prepared import PreparedData
from raytricks.errors import CheckpointError, ConfigError
from raytricks.files import sync_directory
from raytricks.inference.trained_model import Execution, TrainedModel
from raytricks.models.registry import build_model
from raytricks.parts.bring import describe
from raytricks.version import __version__

FORMAT_VERSION = (2, 0)
"""Readers refuse a newer first number, and ignore what a newer second number adds."""
_KEY = "raytricks"
_MOST_HEADER_BYTES = 16 * 2**20  # a file of ours has thousands of bytes of names, not millions


def describe_model(
    config: ModelConfig,
    data: PreparedData,
    *,
    execution: Execution | None = None,
    metrics: Mapping[str, float] | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a model file says beside its weights, as plain values.

    Args:
        execution: how its training evaluated it.
        calibration: "temperature" and what it was fitted on; None: not calibrated.
    """
    decided = config.model_copy(update={"transform_input": _decided(config, data.channels)})
    return {
        "format_version": ".".join(map(str, FORMAT_VERSION)),
        "raytricks_version": __version__,
        "model": json.loads(decided.model_dump_json()),
        "parts": [asdict(part) for part in describe([config.part] if config.part else [])],
        "class_names": list(data.class_names),
        "channels": data.channels,
        "transform": asdict(data.transform),
        "activation": "softmax",
        "execution": asdict(execution or Execution()),
        "metrics": dict(metrics or {}),
        "calibration": dict(calibration) if calibration else None,
    }


def save_model(
    path: Path,
    state_dict: Mapping[str, Tensor],
    config: ModelConfig,
    data: PreparedData,
    metrics: Mapping[str, float],
    *,
    execution: Execution | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> None:
    """Write the model file atomically.

    Raises:
        CheckpointError: the disk is full or not writable; an older file is untouched.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    owners = {value.untyped_storage().data_ptr(): name for name, value in tensors.items()}
    for name, value in tensors.items():  # tied weights are written under each of their names
        if owners[value.untyped_storage().data_ptr()] != name:
            tensors[name] = value.clone()
    description = describe_model(config, data, execution=execution, metrics=metrics, calibration=calibration)
    description["digest"] = _digest(description, tensors)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        save_file(tensors, temporary, {_KEY: json.dumps(description)})
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


def _digest(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of all that a file holds; safetensors itself has no checksum, and no order of metadata."""
    told = {name: value for name, value in description.items() if name != "digest"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_description(path: Path) -> dict[str, Any]:
    """Return what a model file says beside its weights, of any version as the newest would say it; reads no weights.

    Raises:
        CheckpointError: missing, damaged, a pickle, not ours, or of a newer raytricks.
    """
    _require_short_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return description_of(file.metadata() or {}, path)
    except FileNotFoundError:
        raise _missing(path) from None
    except (SafetensorError, OSError) as error:
        raise _not_safetensors(path, error) from None


def description_of(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the description in a file's metadata, as the newest version would say it."""
    try:
        if metadata.get("format") == "raytricks-model-1":
            return _from_version_1(metadata)
        if _KEY not in metadata:
            raise CheckpointError(f"{path}: not a model of raytricks: its header does not say so")
        description = json.loads(metadata[_KEY])
        major = int(str(description["format_version"]).partition(".")[0])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({error}); copy the file again") from None
    if major > FORMAT_VERSION[0]:
        made_with = description.get("raytricks_version", "a newer version")
        raise CheckpointError(
            f"{path}: format {description['format_version']} is newer than this raytricks reads; it was written with "
            f"raytricks {made_with}: pip install -U raytricks"
        )
    return description


def _from_version_1(metadata: Mapping[str, str]) -> dict[str, Any]:
    """A file of format 1 has a metadata key for each value, and says less."""
    transform = json.loads(metadata["transform"])
    transform.pop("stored_side", None)  # in files of early versions: evaluation images were resized twice
    return {
        "format_version": "1.0",
        "model": json.loads(metadata["model"]),
        "parts": json.loads(metadata.get("parts", "[]")),
        "class_names": json.loads(metadata["class_names"]),
        "channels": json.loads(metadata["channels"]),
        "transform": transform,
        "activation": "softmax",
        "execution": asdict(Execution()),
        "metrics": json.loads(metadata["metrics"]),
        "calibration": None,
    }


def description_of_file(path: Path) -> dict[str, Any]:
    """Return the description in a model file, or that a run keeps beside its checkpoints as JSON."""
    if path.suffix != ".json":
        return read_description(path)
    try:
        return description_of({_KEY: path.read_text()}, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def load_model(path: str | Path, *, trust_code: bool = False) -> TrainedModel:
    """Read a `model.safetensors` of ours; the model is in evaluation mode on the CPU. `raytricks.load` takes more.

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
    _require_short_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            description = description_of(file.metadata() or {}, path)
            model = empty_model(description, path, trust_code=trust_code)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
            _require_same_tensors(model, shapes, path)
            tensors = {name: file.get_tensor(name) for name in shapes}
    except FileNotFoundError:
        raise _missing(path) from None
    except (SafetensorError, OSError) as error:
        raise _not_safetensors(path, error) from None
    if "digest" in description and _digest(description, tensors) != description["digest"]:
        raise CheckpointError(f"{path}: its content differs from what was written (sha256); copy the file again")
    return filled_model(model, tensors, description, path)


def empty_model(description: Mapping[str, Any], path: Path, *, trust_code: bool) -> torch.nn.Module:
    """Build the module that a description tells of, with weights of no meaning.

    Raises:
        CheckpointError: the description is damaged.
        ConfigError: code that is not trusted.
    """
    section = model_section({"parts": json.dumps(description["parts"])}, path, trust_code=trust_code)
    try:
        preprocess = _preprocess(description)
        return build_model(
            section.model_validate(description["model"]),
            num_classes=len(description["class_names"]),
            in_channels=preprocess.channels,
            image_size=preprocess.transform.image_size,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        raise _do_not_belong(path, error) from None


def filled_model(
    model: torch.nn.Module, tensors: Mapping[str, Tensor], description: Mapping[str, Any], path: Path
) -> TrainedModel:
    """Return the trained model of a module and its weights; raises CheckpointError where they do not fit."""
    try:
        own = model.state_dict()  # with its version notes, which a safetensors file has not
        own.update(tensors)
        model.load_state_dict(own)
        return TrainedModel(
            model=model.eval(),
            class_names=tuple(description["class_names"]),
            preprocess=_preprocess(description),
            metrics=dict(description["metrics"]),
            calibration=description.get("calibration"),
            execution=_execution(description),
            description=dict(description),
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _do_not_belong(path, error) from None


def _preprocess(description: Mapping[str, Any]) -> EvaluationInput:
    known = Transform.__dataclass_fields__
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in description["transform"].items()
        if name in known
    }
    channels = int(description["channels"])
    if channels not in (1, 3) or len(fields["mean"]) != channels:
        raise ValueError(f"{channels} channels and {len(fields['mean'])} means")
    return EvaluationInput(Transform(**fields), channels)


def _execution(description: Mapping[str, Any]) -> Execution:
    known = Execution.__dataclass_fields__
    return Execution(**{name: value for name, value in description["execution"].items() if name in known})


def _require_same_tensors(model: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if own != dict(shapes):
        differing = sorted(set(own.items()) ^ set(shapes.items()))[:3]
        raise _do_not_belong(path, ValueError(f"tensors {', '.join(name for name, _ in differing)}"))


def _require_short_header(path: Path) -> None:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except (FileNotFoundError, IsADirectoryError):
        raise _missing(path) from None
    except OSError as error:
        raise _not_safetensors(path, error) from None
    if length > _MOST_HEADER_BYTES:
        raise _not_safetensors(path, ValueError(f"its header would take {length:,} bytes"))


def _missing(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: no such model file; a finished run has a model.safetensors")


def _not_safetensors(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a safetensors file that can be read ({error})")


def _do_not_belong(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{path}: its description and its weights do not belong together ({reason}); copy the file again"
    )
