"""`raytricks export`: an exported file of a run, compared on the run's own images."""

from pathlib import Path

import numpy as np

from raytricks.data.batches import evaluation_reader
from raytricks.errors import ConfigError, DataError
from raytricks.export.exporting import SUFFIXES, ExportResult, export_model, require_format
from raytricks.export.int8 import CALIBRATION_IMAGES, Quantised, quantise
from raytricks.inference.trained_model import TrainedModel
from raytricks.training.kept_models import load
from raytricks.use.labelled import Labelled, SplitName, labelled_images, run_of

_COMPARED, _SCORED = 1000, 10_000


def export(
    model: str | Path,
    out: str | Path | None = None,
    *,
    format: str = "onnx",
    bare: bool = False,
    any_size: bool = False,
    int8: bool = False,
    data: str | None = None,
    weights: str | int = "last",
    overwrite: bool = False,
    trust_code: bool = False,
) -> tuple[ExportResult, Quantised | None]:
    """Export a model, proven on up to 1,000 of its run's evaluation images beside adversarial ones.

    Args:
        model, weights, trust_code: as of `raytricks.load`.
        out: None: model.onnx or model.pt2 beside the model.
        format, bare, any_size, overwrite: as of `export_model`.
        int8: also write FILE.int8.onnx, its ranges measured on training images (with `data`: on some of it),
            scored on evaluation images (with `data`: on the others).
        data: labelled images in place of the run's.

    Raises:
        ConfigError, DataError, RaytricksError: as of `export_model`; int8 without images.
    """
    kind = require_format(format)
    if int8 and (kind != "onnx" or bare or any_size):
        raise ConfigError("--int8 is of ONNX files that take stored squares; leave --bare and --any-size out")
    trained = load(model, weights=weights, device="cpu", dtype="fp32", trust_code=trust_code)
    place = Path(model).expanduser()
    run_dir = run_of(place)
    if out is None:
        out = (place if place.is_dir() else place.parent) / f"model{SUFFIXES[kind]}"
    eight_bits = Path(out).expanduser().with_name(f"{Path(out).stem}.int8.onnx")
    if int8 and eight_bits.exists() and not overwrite:
        raise ConfigError(f"--int8: {eight_bits} is there already; name another file, or add --overwrite")
    found = _labelled(trained, data, run_dir, "auto")
    squares = None if found is None else squares_of(trained, found, _COMPARED)
    result = export_model(
        trained, out, format=format, bare=bare, any_size=any_size, squares=squares, overwrite=overwrite
    )
    if not int8:
        return result, None
    if found is None:
        raise ConfigError("--int8 needs labelled images: those of the model's run, or --data")
    of_training = None if data is not None else _labelled(trained, None, run_dir, "train")
    if of_training is not None:
        calibration = squares_of(trained, of_training, CALIBRATION_IMAGES)
        scored = _chosen(len(found.images), _SCORED)
    else:  # the same images may not measure the ranges and be scored
        ranged = _chosen(len(found.images), min(CALIBRATION_IMAGES, len(found.images) // 2))
        calibration = _squares(trained, found, ranged)
        scored = np.setdiff1d(np.arange(len(found.images)), ranged)[:_SCORED]
    quantised = quantise(
        result.path, eight_bits, calibration, _squares(trained, found, scored), found.images.labels[scored]
    )
    return result, quantised


def squares_of(trained: TrainedModel, labelled: Labelled, most: int) -> np.ndarray:
    """Return up to `most` images, spread evenly, as (n, side, side, C) uint8 squares."""
    return _squares(trained, labelled, _chosen(len(labelled.images), most))


def _squares(trained: TrainedModel, labelled: Labelled, chosen: np.ndarray) -> np.ndarray:
    if not len(chosen):
        return np.empty((0, trained.preprocess.side, trained.preprocess.side, trained.channels), np.uint8)
    read = evaluation_reader(labelled.images.images, trained.preprocess.transform)
    parts = [read(part).pixels.permute(0, 2, 3, 1).numpy() for part in np.array_split(chosen, -(-len(chosen) // 128))]
    return np.ascontiguousarray(np.concatenate(parts))


def _chosen(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _labelled(trained: TrainedModel, data: str | None, run_dir: Path | None, split: SplitName) -> Labelled | None:
    """Return labelled images; None where there are none any more: adversarial ones are enough to compare on."""
    if data is None and run_dir is None:
        return None
    try:
        return labelled_images(trained, data, run_dir, split)
    except DataError:
        if data is not None and split == "auto":
            raise
        return None


def export_lines(result: ExportResult, quantised: Quantised | None) -> list[str]:
    """Return what was written and how it was proven."""
    lines = [f"exported    {result.path}, {result.num_bytes / 2**20:.1f} MiB, fp32", f"differences {result.parity}"]
    if result.sidecar is not None:
        lines.append(f"sidecar     {result.sidecar}: preprocessing and class names")
    if quantised is not None:
        pair = quantised.comparison
        points = pair.difference
        low, high = (0.0 if bound is None else 100 * bound for bound in (points.low, points.high))
        lines.append(
            f"int8        {quantised.path}, {quantised.num_bytes / 2**20:.1f} MiB: top-1 {pair.accuracy_a:.2%} against "
            f"{pair.accuracy_b:.2%} of {pair.num_images:,} images ({100 * (points.value or 0):+.2f} points "
            f"[{low:+.2f}, {high:+.2f}]) on this CPU, {'7' if quantised.reduce_range else '8'}-bit weights"
        )
    return lines
