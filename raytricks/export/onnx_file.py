"""Write ONNX: opset 18, any batch, one file, with class names and preprocessing in its metadata."""

from collections.abc import Mapping
import contextlib
import io
import logging
from pathlib import Path
from typing import Any
import warnings

import torch
from torch import Tensor, nn

from raytricks.errors import ConfigError
from raytricks.export.graph import BARE_INPUT, INPUT, OUTPUTS, PIXELS

OPSET = 18
_MOST_BYTES = 1_500_000_000  # of one protobuf file


def require_onnx() -> None:
    """Raise ConfigError where the packages are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--format onnx: {error.name} is not installed; pip install 'raytricks[onnx]'") from None


def write_onnx(
    module: nn.Module, example: Tensor, free: Mapping[int, Any], path: Path, told: Mapping[str, str], *, bare: bool
) -> Path:
    """Write the file, and beside it one that gives the normalised images too, to be compared.

    Args:
        free: dimensions of the input that are not fixed.
        told: for its metadata.

    Returns:
        The path of the second file.

    Raises:
        ConfigError: the net is too large for one file, or holds what ONNX has not.
    """
    size = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    if size > _MOST_BYTES:
        raise ConfigError(f"--format onnx: weights of {size / 1e9:.1f} GB do not fit into one file; use torch-export")
    names = (*OUTPUTS[:1],) if bare else (*OUTPUTS, PIXELS)
    program = _exported(module, example, free, BARE_INPUT if bare else INPUT, names)
    model = program.model_proto
    for name, value in told.items():
        model.metadata_props.add(key=name, value=value)
    watched = path.with_name(f"watched-{path.name}")
    watched.write_bytes(model.SerializeToString())
    if not bare:
        kept = [output for output in model.graph.output if output.name != PIXELS]
        del model.graph.output[:]
        model.graph.output.extend(kept)
    path.write_bytes(model.SerializeToString())
    return watched


def _exported(module: nn.Module, example: Tensor, free: Mapping[int, Any], name: str, outputs: tuple[str, ...]) -> Any:
    with _silent():
        try:
            return torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[name],
                output_names=list(outputs),
                dynamic_shapes=(dict(free),),
                verbose=False,
            )
        except Exception as error:  # the exporter's errors are of many kinds, with pages of advice
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ConfigError(
                f"--format onnx: the net cannot be exported ({reason.strip()}); try torch-export"
            ) from None


@contextlib.contextmanager
def _silent():
    """Keep the exporter's progress, advice and deprecations of its own code off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
