"""Write a torch.export program (.pt2): for torch of the same major schema, without the net's Python code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
import warnings

import torch
from torch import Tensor, nn

from raytricks.errors import ConfigError


def write_torch(module: nn.Module, example: Tensor, free: Mapping[int, Any], path: Path) -> None:
    """Write the program; raises ConfigError where the net cannot be traced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own code
        try:
            program = torch.export.export(module, (example,), dynamic_shapes=(dict(free),))
            torch.export.save(program, path)
        except Exception as error:  # of many kinds, with pages of advice
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ConfigError(f"--format torch-export: the net cannot be traced ({reason.strip()})") from None
