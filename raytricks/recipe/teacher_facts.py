"""What is known about a distillation teacher without loading its weights."""

from dataclasses import dataclass
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from raytricks.config import load_config
from raytricks.errors import ConfigError


@dataclass(frozen=True)
class TeacherFacts:
    """A run of ours that teaches.

    Attributes:
        class_names: in the order of its logits.
        smoothing_epsilon: its label smoothing, 0: none; None where its config is gone.
    """

    class_names: tuple[str, ...]
    smoothing_epsilon: float | None


def teacher_facts(path: str) -> TeacherFacts | None:
    """Read the header of a run's model file and the config beside it; no tensor is read.

    Args:
        path: a run's directory or a safetensors file of ours, as `tricks.distillation.teacher`.

    Returns:
        None for the names of torchvision and timm, and for what cannot be read.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / "model.safetensors"
    try:
        with safe_open(file, framework="numpy") as model:
            metadata = model.metadata() or {}
        described = json.loads(metadata["raytricks"]) if "raytricks" in metadata else None
        class_names = tuple(described["class_names"] if described else json.loads(metadata["class_names"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return TeacherFacts(class_names, _smoothing_epsilon(file.parent / "config.yaml"))


def _smoothing_epsilon(path: Path) -> float | None:
    try:
        return load_config(path, of_run=True).config.tricks.label_smoothing.epsilon
    except ConfigError:
        return None
