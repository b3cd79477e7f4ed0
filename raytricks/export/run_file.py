"""Run an exported file on the inputs of an .npz and write its outputs: in a process of its own, for `parity`.

    python -m raytricks.export.run_file FILE INPUTS.npz OUTPUTS.npz

Of ONNX once with the runtime's optimisations and once without; with 1, 2 and 7 images, then with all of them.
"""

from collections.abc import Callable
from pathlib import Path
import sys
import warnings

import numpy as np

_BATCHES = (1, 2, 7)
_AT_ONCE = 64


def main(file: str, inputs: str, outputs: str) -> None:
    given = np.load(inputs)
    found: dict[str, np.ndarray] = {}
    for kind, run in _runners(Path(file)).items():
        for key in given.files:
            images = given[key]
            for count in _BATCHES:
                for name, values in run(images[:count]).items():
                    found[f"{key}/{kind}/{count}/{name}"] = values
            pieces = [run(images[a : a + _AT_ONCE]) for a in range(0, len(images), _AT_ONCE)]
            for name in pieces[0]:
                found[f"{key}/{kind}/all/{name}"] = np.concatenate([piece[name] for piece in pieces])
    np.savez(outputs, **found)  # type: ignore[arg-type]


def _runners(file: Path) -> dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]]:
    if file.suffix == ".onnx":
        return {kind: _onnx(file, optimized=kind == "optimized") for kind in ("optimized", "plain")}
    return {"torch": _torch(file)}


def _onnx(file: Path, *, optimized: bool) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    import onnxruntime

    from raytricks.limits import usable_cpus

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()  # it does not see the limits of a container
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = session.run(names, {given.name: images})
        return {name: np.asarray(value) for name, value in zip(names, outputs, strict=True)}

    return run


def _torch(file: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    import torch

    from raytricks.export.graph import OUTPUTS, PIXELS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(file).module()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(images))
        return {name: value.numpy() for name, value in zip((*OUTPUTS, PIXELS), outputs, strict=False)}

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
