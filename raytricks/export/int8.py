"""Quantise an exported ONNX file to 8 bits, statically and per channel, and measure what that costs."""

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import logging
from pathlib import Path
import tempfile
import warnings

import numpy as np

from raytricks.errors import ConfigError
from raytricks.export.graph import INPUT
from raytricks.inference.comparison import Comparison, compare_models
from raytricks.limits import usable_cpus

CALIBRATION_IMAGES = 200
_QUANTISED = ["Conv", "Gemm", "MatMul"]  # not the preprocessing, not the softmax
_AT_ONCE = 32


@dataclass(frozen=True)
class Quantised:
    """A quantised file.

    Attributes:
        num_bytes, num_bytes_before: of the files.
        comparison: top-1 of the quantised file, A, with that of the file before, B, on the same images.
        reduce_range: weights of 7 bits, which CPUs without VNNI need; of both, the one nearer to the file before on
            the calibration images.
    """

    path: Path
    num_bytes: int
    num_bytes_before: int
    comparison: Comparison
    reduce_range: bool


def quantise(file: Path, path: Path, calibration: np.ndarray, squares: np.ndarray, labels: np.ndarray) -> Quantised:
    """Write an 8-bit file of an ONNX file that takes stored squares.

    Args:
        calibration: (M, side, side, C) uint8 squares that the ranges of activations are measured on.
        squares, labels: other images, that it is scored on.

    Raises:
        ConfigError: no images to measure on.
    """
    if not len(calibration) or not len(squares):
        raise ConfigError("--int8 needs images: to measure the ranges of activations, and to say what it costs")
    before = answers_of_file(file, squares).argmax(axis=1) == labels
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-int8-") as folder:
        wanted, errors = answers_of_file(file, calibration), {}
        for reduce_range in (False, True):
            made = Path(folder, f"{reduce_range}.onnx")
            _write(file, made, calibration, reduce_range=reduce_range)
            errors[reduce_range] = float(np.square(answers_of_file(made, calibration) - wanted).mean())
        reduce_range = errors[True] < errors[False]  # not by the images that it is scored on
        made = Path(folder, f"{reduce_range}.onnx")
        right = answers_of_file(made, squares).argmax(axis=1) == labels
        made.replace(path)
    comparison = compare_models(right, before)
    return Quantised(path, path.stat().st_size, file.stat().st_size, comparison, reduce_range)


def answers_of_file(file: Path, squares: np.ndarray) -> np.ndarray:
    """Return the (N, K) logits of an ONNX file, on a CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    parts = [session.run(["logits"], {INPUT: part})[0] for part in _parts(squares)]
    return np.concatenate([np.asarray(part) for part in parts])


def _parts(squares: np.ndarray) -> Iterator[np.ndarray]:
    return (squares[a : a + _AT_ONCE] for a in range(0, len(squares), _AT_ONCE))


def _write(file: Path, path: Path, calibration: np.ndarray, *, reduce_range: bool) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """Gives a batch at a time."""

        def __init__(self) -> None:
            self._parts = _parts(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            part = next(self._parts, None)
            return None if part is None else {INPUT: part}

    with _silent():
        quantization.quantize_static(
            str(file),
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep advice about a preparation that the exporter has made already off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
