"""Weights on disk: a model file of ours, another safetensors file, or a state dict of `torch.save`.

Nothing in such a file is executed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import json
from pathlib import Path
import pickle
from typing import Any

from safetensors import SafetensorError, safe_open
import torch

from raytricks.errors import ConfigError

KEY = "model.init_from"
SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".bin", ".ckpt")
_OUR_FORMAT = "raytricks-model-"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


@dataclass(frozen=True)
class Weights:
    """Tensors by name, on the CPU, and the classes they were trained on in the classifier's order.

    Attributes:
        class_names: None when the source does not tell.
    """

    tensors: Mapping[str, torch.Tensor]
    class_names: tuple[str, ...] | None = None


def locate_weights(path: str) -> Path:
    """Return the file that a path of `model.init_from` stands for, without opening it.

    Args:
        path: a file, or a run's directory, which stands for its model.safetensors.

    Raises:
        ConfigError: nothing is there, or its suffix is none of SUFFIXES.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / "model.safetensors"
        if not file.is_file():
            raise ConfigError(f"{KEY}: {path} has no model.safetensors; a run writes it when it has finished")
    if not file.is_file():
        raise ConfigError(f"{KEY}: {path} does not exist; give a run's directory or a file of weights")
    if not file.name.endswith(SUFFIXES):
        raise ConfigError(f"{KEY}: {path} must be a run's directory or end in {', '.join(SUFFIXES)}")
    return file


def read_weights(path: str) -> Weights:
    """Read the weights that a path of `model.init_from` stands for.

    Raises:
        ConfigError: as `locate_weights`; or the file is damaged or holds anything but tensors by name.
    """
    file = locate_weights(path)
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_state_dict(file)


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        is_ours = metadata.get("format", "").startswith(_OUR_FORMAT)
        return Weights(tensors, tuple(json.loads(metadata["class_names"])) if is_ours else None)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{KEY}: {path} cannot be read ({first_line(error)}); copy the file again") from None


def _read_state_dict(path: Path) -> Weights:
    save_again = "save it again by torch.save(model.state_dict(), PATH)"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's text proposes to allow the code
        raise ConfigError(f"{KEY}: {path} is no plain state dict and could run code; {save_again}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ConfigError(f"{KEY}: {path} cannot be read ({first_line(error)}); copy the file again") from None
    tensors = _unwrap(content)
    if not isinstance(tensors, Mapping) or not tensors or not all(isinstance(name, str) for name in tensors):
        raise ConfigError(f"{KEY}: {path} holds no tensors by name but {type(tensors).__name__}; {save_again}")
    others = [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ConfigError(
            f"{KEY}: {path} holds {len(others)} entries that are no tensors (first {others[0]}); {save_again}"
        )
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return Weights(tensors)


def _unwrap(content: Any) -> Any:
    """Return the state dict inside a training checkpoint, or the content itself."""
    if isinstance(content, Mapping):
        for key in _WRAPPERS:
            if isinstance(content.get(key), Mapping):
                return content[key]
    return content


def described_model(path: str) -> dict[str, Any] | None:
    """Return the section `model` that a file of ours was trained with; None for files of others. Reads no weights.

    Args:
        path: as of `locate_weights`.

    Raises:
        ConfigError: as `locate_weights`.
    """
    file = locate_weights(path)
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        is_described = metadata.get("format", "").startswith(_OUR_FORMAT) and "model" in metadata
        return json.loads(metadata["model"]) if is_described else None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{KEY}: {path} cannot be read ({first_line(error)}); copy the file again") from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type's name if it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
