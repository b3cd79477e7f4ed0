"""`raytricks.export_model`: write a file for another runtime, prove it, then put it in its place."""

from dataclasses import dataclass
import json
from pathlib import Path
import tempfile
from typing import Literal

import numpy as np
import torch

from raytricks.errors import ConfigError, RaytricksError
from raytricks.export.any_size import AnySizeModel, adversarial_pictures
from raytricks.export.graph import BareModel, ServedModel, example_of, free_dims
from raytricks.export.onnx_file import require_onnx, write_onnx
from raytricks.export.parity import Parity, adversarial_squares, require_parity, require_parity_within_levels
from raytricks.export.torch_file import write_torch
from raytricks.files import sync_directory
from raytricks.inference.trained_model import TrainedModel
from raytricks.version import __version__

Format = Literal["onnx", "torch-export"]
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
_OTHERS = {
    "coreml": "coremltools 9.0 refuses programs of torch 2.9 and newer",
    "litert": "litert-torch wants an older torch, and jax",
    "tflite": "litert-torch wants an older torch, and jax",
    "executorch": "it pins other versions of torch",
    "torchscript": "torch has deprecated it",
    "tensorrt": "it builds its engines from ONNX, on the GPU that they are for",
    "openvino": "it reads ONNX as it is",
}


@dataclass(frozen=True)
class ExportResult:
    """An exported file that was proven.

    Attributes:
        sidecar: preprocessing and class names of a file that takes normalised images; else None.
    """

    path: Path
    num_bytes: int
    parity: Parity
    sidecar: Path | None


def require_format(name: str) -> Format:
    """Return a format; raises ConfigError that says why another one cannot be had, and what to do."""
    if name in SUFFIXES:
        return name  # type: ignore[return-value]
    if name in _OTHERS:
        raise ConfigError(f"--format {name} cannot be written: {_OTHERS[name]}; export onnx and convert that there")
    raise ConfigError(f"--format must be {' or '.join(SUFFIXES)}, got {name!r}")


def export_model(
    trained: TrainedModel,
    path: str | Path,
    *,
    format: str = "onnx",
    bare: bool = False,
    any_size: bool = False,
    squares: np.ndarray | None = None,
    overwrite: bool = False,
) -> ExportResult:
    """Write a model for another runtime, run the file in a fresh process, and keep it only when it answers alike.

    Args:
        path: .onnx or .pt2.
        format: onnx or torch-export.
        bare: normalised images in, logits out; preprocessing and class names go to FILE.json. Else stored squares,
            (N, side, side, C) uint8 RGB, in, and logits, probabilities and the most probable classes out.
        any_size: decoded images of any size in, (N, H, W, C) uint8 RGB, upright, and resized inside: their pixels come
            within two levels of ours, not exactly.
        squares: (M, side, side, C) uint8, real images to compare on beside the adversarial ones.

    Raises:
        ConfigError: a format that cannot be had, missing packages, a net that cannot be exported, a file in the way.
        RaytricksError: the file does not answer as the model does; it is not kept.
    """
    path, kind = Path(path).expanduser(), require_format(format)
    if path.suffix != SUFFIXES[kind]:
        raise ConfigError(f"-o {path}: must end with {SUFFIXES[kind]}")
    sidecar = path.with_name(f"{path.name}.json") if bare else None
    for there in (path, sidecar):
        if there is not None and (there.is_dir() or there.exists() and not overwrite):
            raise ConfigError(f"-o {path}: {there} is there already; name another file, or add --overwrite")
    if not path.parent.is_dir():
        raise ConfigError(f"-o {path}: {path.parent} is no directory; make it, or name another")
    if bare and any_size:
        raise ConfigError("--any-size resizes inside and --bare has no preprocessing; leave one of them out")
    if kind == "onnx":
        require_onnx()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-export-") as folder:
            made = Path(folder, path.name)
            watched = _write(trained, made, kind, bare=bare, any_size=any_size)
            parity = _proven(made, watched, trained, squares, bare=bare, any_size=any_size)
            if sidecar is not None:
                told = Path(folder, sidecar.name)
                told.write_text(json.dumps(_sidecar(trained), indent=1))
                told.replace(sidecar)
            made.replace(path)
            sync_directory(path.parent)
    except OSError as error:
        raise RaytricksError(f"-o {path}: cannot be written ({error.strerror or error}); nothing was kept") from None
    return ExportResult(path, path.stat().st_size, parity, sidecar)


def _proven(
    file: Path, watched: Path | None, trained: TrainedModel, squares: np.ndarray | None, *, bare: bool, any_size: bool
) -> Parity:
    side, channels = trained.preprocess.side, trained.channels
    if any_size:
        return require_parity_within_levels(file, watched, trained, adversarial_pictures(side, channels, squares))
    checked = adversarial_squares(side, channels)
    checked = checked if squares is None else np.concatenate([squares, checked])
    return require_parity(file, watched, trained, checked, bare=bare)


def _write(trained: TrainedModel, path: Path, kind: Format, *, bare: bool, any_size: bool) -> Path | None:
    module = BareModel(trained) if bare else AnySizeModel(trained) if any_size else ServedModel(trained)
    example, free = example_of(trained, bare=bare, any_size=any_size), free_dims(any_size=any_size)
    if kind == "torch-export":
        write_torch(module.eval(), example, free, path)
        return None
    told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in _sidecar(trained).items()}
    told["input"] = "inputs" if bare else "any_size" if any_size else "stored_square"
    watched = write_onnx(module.eval(), example, free, path, told, bare=bare)
    return None if bare else watched


def _sidecar(trained: TrainedModel) -> dict[str, object]:
    """Return what a program must know to feed the file and to read its answers."""
    preprocess, transform = trained.preprocess, trained.preprocess.transform
    return {
        "raytricks_version": __version__,
        "torch_version": torch.__version__,
        "class_names": list(trained.class_names),
        "channels": trained.channels,
        "stored_side": preprocess.side,
        "image_size": transform.image_size,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "temperature": trained.temperature,
        "stored_square": "the image upright (EXIF), its central square resized to stored_side, antialiased; RGB",
        "network_input": "the central image_size of the stored square, / 255, - mean, / std; NCHW float32",
    }
