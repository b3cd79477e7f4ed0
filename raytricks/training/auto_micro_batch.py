"""How many images at once fit into a device's memory: found by halving, kept for the rest of the run.

    micro_batch.json   {"training": 64, "evaluation": null}, in the run's directory; null: no limit found

A CPU's memory is looked at before the start: who takes too much of it is killed, not told.

One process goes on with half the images after it ran out of memory. Of several workers only one
ran out, and the others wait for its gradient: it leaves the halved limit behind and ends, so that
the restart, from the newest checkpoint, begins with it on all of them.
"""

import gc
import json
from pathlib import Path

import torch

from raytricks.config.schema import ExperimentConfig
from raytricks.data.batches import evaluation_batch_size
from raytricks.errors import CheckpointError, ConfigError, RaytricksError
from raytricks.files import write_atomically
from raytricks.limits import available_memory_bytes, memory_bytes
from raytricks.models.cost import count_activation_bytes
from raytricks.models.registry import build_model
from raytricks.recipe.parallel_plan import plan_parallel
from raytricks.recipe.resolve import training_sides
from raytricks.training.worker import Worker

LIMITS_FILE = "micro_batch.json"
_MESSAGES = (  # of a plain RuntimeError
    "DefaultCPUAllocator",
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


_USABLE_PART = 0.8
_FP32_BYTES = 4
_NEEDED = 1.4  # times the activations of a forward pass, see count_activation_bytes
_MOST_NEEDED = 2000  # times the pixels; ResNet-50 needs 160, ViT 260


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device, or the machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def free_memory() -> None:
    """Give back what nothing refers to any more; an exception must be forgotten before, it holds its frames."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class HalvedBatch(torch.OutOfMemoryError):
    """Out of memory, once more: the next start takes half as many images at once, so it is no failure to count."""


class AutoMicroBatch:
    """The limits that a run has found so far; none when `hardware.images_per_device` is not auto.

    Attributes:
        training: most images in one forward and backward pass; None: no limit found.
        evaluation: most images in one evaluation batch; None: no limit found.

    Raises:
        CheckpointError: the run's file of limits is damaged.
    """

    def __init__(self, run_dir: Path, config: ExperimentConfig, worker: Worker) -> None:
        self._path, self._worker = run_dir / LIMITS_FILE, worker
        given = config.hardware.images_per_device
        self.is_auto = given == "auto"
        self._given = given if isinstance(given, int) else None
        self.training, self.evaluation = _read(self._path) if self.is_auto else (None, None)

    def bound_by_memory(self, config: ExperimentConfig, num_classes: int) -> str | None:
        """Begin with no more images at once than the free memory of a CPU holds. Collective.

        Returns:
            A note for the user; None where all images of a step fit, or a limit is known.
        """
        worker = self._worker
        if not self.is_auto or worker.device_type != "cpu" or worker.largest_over_workers(self.training or 0):
            return None
        planned = self._planned(config, None)
        free = int(_USABLE_PART * available_memory_bytes()) // worker.num_local
        own = free // _bytes_of_image(config, num_classes, enough=free // planned)
        fitting = self._planned(config, -worker.largest_over_workers(-max(1, own)))
        if fitting >= planned:
            return None
        self._keep(fitting, self.evaluation)
        return (
            f"images at once: {fitting} of {planned} ({_what_changes(config)}), as {free / 2**30:.1f} GiB of memory "
            "are free for each worker"
        )

    @property
    def redoes_steps(self) -> bool:
        """Whether a step that does not fit is done again in this process."""
        return self.is_auto and self._worker.world_size == 1

    def evaluation_batch(self, side: int) -> int:
        """Return the images of an evaluation batch, `side` pixels large: without a backward pass twice as many fit."""
        wanted, given = evaluation_batch_size(side), self._given or self.training
        return min(wanted, self.evaluation or wanted, 2 * given if given else wanted)

    def found_before(self) -> str | None:
        """Return a note of the limits that a run starts with."""
        limits = {"in training": self.training, "in evaluation": self.evaluation}
        shown = [f"{images} {where}" for where, images in limits.items() if images is not None]
        return f"images at once: at most {' and '.join(shown)}, as found before" if shown else None

    def halve_training(self, error: BaseException, config: ExperimentConfig, micro_batch_size: int) -> str | None:
        """Remember that so many images at once did not fit.

        Args:
            config: of the phase.

        Returns:
            A note for the user; None when the error is another one or this process cannot go on.
        """
        if not self.redoes_steps or not is_out_of_memory(error):
            return None
        fewer = self._fewer(config, micro_batch_size)
        if fewer is None:
            return None
        self._keep(fewer, self.evaluation)
        return f"out of memory with {micro_batch_size} images at once: going on with {fewer} ({_what_changes(config)})"

    def halve_evaluation(self, error: BaseException, batch_size: int) -> str | None:
        """Remember that an evaluation batch did not fit; arguments and result as of `halve_training`.

        It has no collective before its end, so each of several workers goes on by itself.
        """
        if not self.is_auto or batch_size == 1 or not is_out_of_memory(error):
            return None
        fewer = batch_size // 2
        self._keep(self.training, fewer)
        return f"out of memory with {batch_size} images at once in evaluation: going on with {fewer}"

    def ending(self, config: ExperimentConfig, micro_batch_size: int) -> Exception:
        """Return the error that ends this process, out of memory: one line with the remedy.

        Where fewer images may fit, the next start takes half as many.

        Returns:
            A RaytricksError; for one of several workers an OutOfMemoryError, after which they are started again.
        """
        device = self._worker.device
        fewer = self._fewer(config, micro_batch_size)
        images = f"{micro_batch_size} image{'s' if micro_batch_size > 1 else ''} at once"
        if fewer is None:
            remedy = "take smaller images (data.image_size) or a smaller model (model.name, model.width)"
            if micro_batch_size > 1:
                images += " (batch norm allows no fewer)" if config.model.is_resnet else ""
                remedy += " or model.norm=group" if config.model.is_resnet else ""
        elif self.is_auto:
            self._keep(fewer, self.evaluation)
            remedy = f"set hardware.images_per_device={fewer}; a restart or resume takes it by itself"
        else:
            remedy = "set hardware.images_per_device=auto, which accumulates what fits, and leaves the recipe as it is"
        if fewer is not None and self.is_auto and self._worker.world_size > 1:
            kind: type[torch.OutOfMemoryError] = HalvedBatch
        else:
            kind = torch.OutOfMemoryError
        message = f"out of memory with {images} on {device}, which has {_memory_gib(device):.1f} GiB; {remedy}"
        return RaytricksError(message) if self._worker.world_size == 1 else kind(message)

    def _fewer(self, config: ExperimentConfig, micro_batch_size: int) -> int | None:
        """Return the micro-batch of half as many images; None where it cannot be smaller."""
        planned = self._planned(config, max(1, micro_batch_size // 2))
        return planned if planned < micro_batch_size else None

    def _planned(self, config: ExperimentConfig, fitting_images: int | None) -> int:
        """Return the micro-batch where so many images fit, or all do."""
        worker = self._worker
        return plan_parallel(
            config, num_workers=worker.world_size, device_type=worker.device_type, fitting_images=fitting_images
        ).micro_batch_size

    def _keep(self, training: int | None, evaluation: int | None) -> None:
        self.training, self.evaluation = training, evaluation
        own = self._path.with_name(f"{self._path.name}.{self._worker.rank}")  # several may run out at once
        write_atomically(own, json.dumps({"training": training, "evaluation": evaluation}).encode())
        own.replace(self._path)


def _bytes_of_image(config: ExperimentConfig, num_classes: int, *, enough: int) -> int:
    """Return what a training step needs for each of its images; at most `enough` when that is sure without a look."""
    channels, side = config.data.channels or 3, max(training_sides(config))
    if _MOST_NEEDED * channels * side * side * _FP32_BYTES <= enough:
        return enough
    try:
        with torch.device("meta"):
            model = build_model(config.model, num_classes=num_classes, in_channels=channels, image_size=side)
        return max(1, int(_NEEDED * count_activation_bytes(model, (channels, side, side))))
    except (RuntimeError, NotImplementedError, ConfigError):  # a model that is only built with numbers
        return enough


def _what_changes(config: ExperimentConfig) -> str:
    if config.model.is_resnet and config.model.norm == "group":
        return "accumulated, the recipe is the same"
    return "accumulated, the recipe is the same; batch norm takes its statistics from as many"


def _read(path: Path) -> tuple[int | None, int | None]:
    if not path.is_file():
        return None, None
    try:
        content = json.loads(path.read_text())
        limits = content["training"], content["evaluation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, type(error).__name__) from None
    for limit in limits:
        if limit is not None and (type(limit) is not int or limit < 1):
            raise _damaged(path, f"got {limit!r}, a limit is a whole number >= 1 or null")
    return limits


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged ({reason}); delete it, what fits is then found again")


def _memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    return memory_bytes() / 2**30
