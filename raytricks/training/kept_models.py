"""`raytricks.load`: the model of a run, of one of its checkpoints, or of a file, with the weights that are wanted."""

from pathlib import Path
from typing import Any

import torch

from raytricks.errors import CheckpointError, ConfigError
from raytricks.inference.model_file import (
    description_of_file,
    empty_model,
    filled_model,
    load_model,
)
from raytricks.inference.trained_model import TrainedModel
from raytricks.training import checkpoint as checkpoints
from raytricks.training.records import METRICS_FILE, read_records
from raytricks.training.run_files import BEST_FILE, CHECKPOINTS, DESCRIPTION_FILE, MODEL_FILE, shadow_file
from raytricks.tricks.mixed_precision import resolve_precision

_AVERAGE = "ema"
_WEIGHTS = "last, best, average or the number of an epoch"


def load(
    path: str | Path,
    *,
    weights: str | int = "last",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    compile: bool = False,
    trust_code: bool = False,
) -> TrainedModel:
    """Return a trained model, ready to predict.

    Args:
        path: a run's directory, finished or not; a directory in its checkpoints/; or a safetensors file of ours.
        weights: of a run: "last", "best" (of the epochs, by the top-1 of the evaluation images), "average" (EMA), or
            the number of an epoch whose checkpoint is kept. Of a checkpoint: "last" or "average".
        device: None: the GPU where there is one, else the CPU.
        dtype: precision to compute in: fp32, fp16 or bf16. None: as the model was evaluated in training, where this
            device is like that one, else fp32.
        compile: compile the model by torch.compile, which takes a minute and pays for long use.
        trust_code: import the model's own code, where it has some, though it is somebody else's.

    Raises:
        CheckpointError: nothing there, damaged, a pickle, or without these weights.
        ConfigError: an unknown device, dtype or kind of weights; or code that is not trusted.
    """
    place = Path(path).expanduser()
    trained = _found(place, weights, trust_code=trust_code)
    target = _device(device)
    if dtype is None:
        same = trained.execution.precision
        dtype = same if target.type == "cuda" or same == resolve_precision("auto", "cpu") else "fp32"
    trained = trained.to(target, dtype)
    if compile:
        trained.model.compile()
    return trained


def _found(place: Path, weights: str | int, *, trust_code: bool) -> TrainedModel:
    if (place / "manifest.json").is_file():
        return _of_checkpoint(place.parent.parent, place, weights, trust_code=trust_code)
    if not place.is_dir():
        if weights != "last":
            raise ConfigError(f"weights={weights!r}: {place} holds one set of weights; name the run to choose")
        return load_model(place, trust_code=trust_code)
    if isinstance(weights, int) or str(weights).isdigit():
        return _of_epoch(place, int(weights), trust_code=trust_code)
    names = {"last": MODEL_FILE, "best": BEST_FILE, "average": shadow_file(_AVERAGE), _AVERAGE: shadow_file(_AVERAGE)}
    if weights not in names:
        raise ConfigError(f"weights must be {_WEIGHTS}, got {weights!r}")
    file = place / names[str(weights)]
    if file.is_file():
        return load_model(file, trust_code=trust_code)
    if weights == "best":
        raise CheckpointError(
            f"{file}: no such file: no epoch of the run was evaluated yet, or an early version made it"
        )
    newest = checkpoints.newest_path(place / CHECKPOINTS)
    if newest is None:
        raise CheckpointError(f"{place} has neither a {file.name} nor a checkpoint; is it the directory of a run?")
    if weights != "last" and (place / MODEL_FILE).is_file():
        raise CheckpointError(f"{place} has no average of its weights; train with tricks.ema.decay=0.999")
    return _of_checkpoint(place, newest, weights, trust_code=trust_code)


def _of_epoch(run_dir: Path, epoch: int, *, trust_code: bool) -> TrainedModel:
    records = read_records(run_dir / METRICS_FILE)
    steps = {record["epoch"]: record["step"] for record in records if record["kind"] == "epoch"}
    paths = {number: checkpoints.path_of(run_dir / CHECKPOINTS, step) for number, step in steps.items()}
    kept = {number: path for number, path in paths.items() if path.is_dir()}
    if epoch not in kept:
        listed = ", ".join(map(str, kept)) or "none"
        raise CheckpointError(f"{run_dir}: the weights of epoch {epoch} are not kept; kept: {listed} (checkpoint.keep)")
    return _of_checkpoint(run_dir, kept[epoch], "last", trust_code=trust_code)


def _of_checkpoint(run_dir: Path, path: Path, weights: str | int, *, trust_code: bool) -> TrainedModel:
    file = next((run_dir / name for name in (DESCRIPTION_FILE, MODEL_FILE) if (run_dir / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{run_dir} has no {DESCRIPTION_FILE}, which says what its checkpoints are of")
    description = description_of_file(file) | {"calibration": None}
    description.pop("digest", None)  # of the file's own weights
    content: dict[str, Any] = checkpoints.load_checkpoint_at(path).content
    if weights in ("average", _AVERAGE):
        tensors = content.get("parts", {}).get(_AVERAGE)
        if tensors is None:
            raise CheckpointError(f"{path} has no average of the weights; train with tricks.ema.decay=0.999")
    elif weights == "last":
        tensors = content["model"]
    else:
        raise ConfigError(f"weights={weights!r}: a checkpoint has its last weights and their average")
    description["metrics"] = content.get("last_metrics", {})
    model = empty_model(description, file, trust_code=trust_code)
    return filled_model(model, tensors, description, path)


def _device(wanted: str | torch.device | None) -> torch.device:
    if wanted is None or wanted == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigError(f"device must be auto, cpu or cuda, got {wanted!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={wanted}: this machine has no usable GPU; leave it out, or set device=cpu")
    return device
