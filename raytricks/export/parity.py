"""Whether an exported file answers as the model does: run in a fresh process, from another folder, and compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch

from raytricks.errors import RaytricksError
from raytricks.export.graph import PIXELS, fp32_copy
from raytricks.inference.trained_model import TrainedModel

PIXEL_TOLERANCE = 1e-3  # levels of 0..255
LOGIT_TOLERANCE = 1e-4  # parts of the largest logit
_PROBABILITY_TOLERANCE = 1e-4
_RESIZED_PIXEL_TOLERANCE, _MEAN_PIXEL_TOLERANCE = 2.0, 0.1  # levels, of a file that resizes
_TIMEOUT_S = 900


@dataclass(frozen=True)
class Parity:
    """The largest differences between a file and its model.

    Attributes:
        pixels: of the normalised images, in levels of 0..255; None: the file takes normalised images.
        logits: as a part of the largest logit.
        probabilities: None: the file gives logits alone.
        num_flips: images whose most probable class differs; all of them near a tie, unless the file resizes.
        mean_pixels: mean difference; None: the file does not resize, and `pixels` is rounding of floats.
    """

    num_images: int
    pixels: float | None
    logits: float
    probabilities: float | None
    num_flips: int
    mean_pixels: float | None = None

    def __str__(self) -> str:
        parts = [] if self.pixels is None else [f"pixels {self.pixels:.1e} of a level"]
        parts += [] if self.mean_pixels is None else [f"on average {self.mean_pixels:.1e}"]
        parts.append(f"logits {self.logits:.1e} of the largest")
        parts += [] if self.probabilities is None else [f"probabilities {self.probabilities:.1e}"]
        why = "near ties" if self.mean_pixels is None else "by the pixels"
        return f"{', '.join(parts)}, classes {self.num_flips} ({why}), over {self.num_images:,} images"


def adversarial_squares(side: int, channels: int) -> np.ndarray:
    """Return (M, side, side, C) uint8 squares that faults show on: black, white, gray, checkerboards, ramps, noise."""
    rng = np.random.default_rng(0)
    row, column = np.indices((side, side))
    planes = [np.zeros((side, side)), np.full((side, side), 255), np.full((side, side), 128)]
    planes += [
        255 * ((row + column) % 2),
        255 * (column % 2),
        row * 255 / max(1, side - 1),
        column * 255 / max(1, side - 1),
    ]
    squares = [np.repeat(plane[:, :, None], channels, axis=2) for plane in planes]
    squares += [255.0 * (np.arange(channels) == channel) * np.ones((side, side, 1)) for channel in range(channels)]
    squares += [rng.integers(0, 256, (side, side, channels)) for _ in range(8)]
    return np.stack(squares).round().astype(np.uint8)


def require_parity(
    file: Path, watched: Path | None, trained: TrainedModel, squares: np.ndarray, *, bare: bool
) -> Parity:
    """Compare a file with its model.

    Args:
        file: that is handed out.
        watched: the same with the normalised images as an output; None: `file` has it, or takes them.
        squares: (M, side, side, C) uint8.

    Raises:
        RaytricksError: it does not run, or answers something else.
    """
    expected_inputs, expected = _expected(trained, squares)
    given = expected_inputs if bare else squares
    found = _run(file, {"images": given})
    seen = found if watched is None else _run(watched, {"images": given})
    pixels = None
    if not bare:
        std = 255 * np.array(trained.preprocess.transform.std).reshape(-1, 1, 1)
        pixels = _worst(seen, PIXELS, expected_inputs, scale=std)
        _require(pixels <= PIXEL_TOLERANCE, file, f"its pixels differ by {pixels:.2g} of 255 levels")
    scale = float(np.abs(expected).max()) or 1.0
    logits = _worst(found, "logits", expected) / scale
    _require(logits <= LOGIT_TOLERANCE, file, f"its logits differ by {logits:.2g} of the largest")
    probabilities = None
    if not bare:
        probabilities = _worst(found, "probabilities", trained.probabilities(expected))
        _require(probabilities <= _PROBABILITY_TOLERANCE, file, f"its probabilities differ by {probabilities:.2g}")
        _require_top(found, file)
    return Parity(len(squares), pixels, logits, probabilities, _flips(found, expected, file))


def _expected(trained: TrainedModel, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalised images and the logits, as the model itself gives them on a CPU in fp32."""
    net, transform = fp32_copy(trained), trained.preprocess.transform
    planes = torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()
    inputs = transform.normalize(transform.evaluation_pixels(planes)).contiguous()
    return inputs.numpy(), _answers(net, inputs)


def require_parity_within_levels(
    file: Path, watched: Path | None, trained: TrainedModel, pictures: Mapping[str, np.ndarray]
) -> Parity:
    """Compare a file that resizes with its model: its pixels with ours, its answers with the net's to its own pixels.

    Args:
        file, watched: as of `require_parity`.
        pictures: by size, each (M, H, W, C) uint8.

    Raises:
        RaytricksError: as `require_parity`.
    """
    found = _run(file, pictures)
    seen = found if watched is None else _run(watched, pictures)
    net, std = fp32_copy(trained), 255 * np.array(trained.preprocess.transform.std).reshape(-1, 1, 1)
    pixels, sums, logits, probabilities, flips = 0.0, np.zeros(2), 0.0, 0.0, 0
    for key, images in pictures.items():
        squares = torch.stack([trained.preprocess.of_array(image) for image in images])
        inputs, expected = _expected(trained, squares.permute(0, 2, 3, 1).numpy())
        own = {name: values for name, values in seen.items() if name.startswith(f"{key}/")}
        pixels = max(pixels, _worst(own, PIXELS, inputs, scale=std))
        for name, values in own.items():
            if not name.endswith(f"/{PIXELS}"):
                continue
            sums += np.abs((values - inputs[: len(values)]) * std).sum(), values.size
            answers = _answers(net, torch.from_numpy(values))
            same = {part: found[name.replace(PIXELS, part)] for part in ("logits", "probabilities")}
            scale = float(np.abs(answers).max()) or 1.0
            logits = max(logits, float(np.abs(same["logits"] - answers).max()) / scale)
            wanted = trained.probabilities(answers)
            probabilities = max(probabilities, float(np.abs(same["probabilities"] - wanted).max()))
        flips += max(
            int((values.argmax(axis=1) != expected.argmax(axis=1)).sum())
            for name, values in found.items()
            if name.startswith(f"{key}/") and name.endswith("/all/logits")
        )
    mean_pixels = float(sums[0] / sums[1])
    _require(pixels <= _RESIZED_PIXEL_TOLERANCE, file, f"its pixels differ by {pixels:.2g} of 255 levels")
    _require(mean_pixels <= _MEAN_PIXEL_TOLERANCE, file, f"its pixels differ by {mean_pixels:.2g} levels on average")
    _require(logits <= LOGIT_TOLERANCE, file, f"its logits differ by {logits:.2g} of the largest")
    _require(probabilities <= _PROBABILITY_TOLERANCE, file, f"its probabilities differ by {probabilities:.2g}")
    _require_top(found, file)
    count = sum(len(images) for images in pictures.values())
    return Parity(count, pixels, logits, probabilities, flips, mean_pixels)


def _answers(net: torch.nn.Module, inputs: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([net(part).float() for part in inputs.split(64)]).numpy()


def _run(file: Path, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        moved, given, made = Path(folder, f"moved{file.suffix}"), Path(folder, "in.npz"), Path(folder, "out.npz")
        shutil.copyfile(file, moved)  # alone: what it needs must be in it
        np.savez(given, **images)  # type: ignore[arg-type]
        command = [sys.executable, "-P", "-m", "raytricks.export.run_file", str(moved), str(given), str(made)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RaytricksError(f"{file.name}: gave no answer in {_TIMEOUT_S} s; nothing was kept") from None
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise RaytricksError(f"{file.name}: does not run in a fresh process ({last}); nothing was kept")
        with np.load(made) as outputs:
            return {name: outputs[name] for name in outputs.files}


def _worst(found: dict[str, np.ndarray], output: str, expected: np.ndarray, scale: np.ndarray | float = 1.0) -> float:
    """Return the largest difference of an output, over all ways and batches that the file was run with."""
    worst = 0.0
    for values in _all_of(found, output):
        if values.shape[1:] != expected.shape[1:]:
            return np.inf
        difference = np.abs(values.astype(np.float64) - expected[: len(values)]) * scale
        worst = max(worst, float(difference.max())) if np.isfinite(difference).all() else np.inf
    return worst


def _all_of(found: dict[str, np.ndarray], output: str) -> list[np.ndarray]:
    """Return an output of all ways and batches; raises where the file has none of that name."""
    values = [value for name, value in found.items() if name.endswith(f"/{output}")]
    if not values:
        raise RaytricksError(f"the exported file has no output named {output}; nothing was kept")
    return values


def _require_top(found: dict[str, np.ndarray], file: Path) -> None:
    """Raise where top_classes and top_probabilities are not the most probable of the file's own probabilities."""
    outputs = (_all_of(found, name) for name in ("probabilities", "top_classes", "top_probabilities"))
    for probabilities, classes, values in zip(*outputs, strict=True):
        most = -np.sort(-probabilities, axis=1)[:, : classes.shape[1]]
        holds = classes.min() >= 0 and classes.max() < probabilities.shape[1]
        holds = holds and np.array_equal(np.take_along_axis(probabilities, classes, axis=1), values)
        _require(bool(holds and np.array_equal(most, values)), file, "its top_classes are not the most probable")


def _flips(found: dict[str, np.ndarray], expected: np.ndarray, file: Path) -> int:
    """Count images with another class; raises where the model's answer was no tie."""
    most = 0
    ordered = np.sort(expected, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    for name, values in found.items():
        if name.endswith("/all/logits"):
            flipped = values.argmax(axis=1) != expected.argmax(axis=1)
            clear = margin > 2 * np.abs(values - expected).max()
            _require(not (flipped & clear).any(), file, f"{int((flipped & clear).sum())} images get another class")
            most = max(most, int(flipped.sum()))
    return most


def _require(holds: bool, file: Path, fault: str) -> None:
    if not holds:
        raise RaytricksError(f"{file.name}: does not answer as the model does: {fault}; nothing was kept")
