"""The exported module that takes decoded images of any size, and the pictures that it is compared on.

Its resize repeats the one that stores images, in floats and rounded after each of its two passes as that one is: most
pixels are equal, none further than two levels away. JPEGs that are decoded smaller at once, EXIF, transparency and
16 bits lie outside the graph: who decodes the image turns it upright and gives 8-bit RGB.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from raytricks.export.graph import ServedModel
from raytricks.export.parity import adversarial_squares
from raytricks.inference.trained_model import TrainedModel

_REAL = 7  # images of each size, the largest batch that is tried


class AnySizeModel(ServedModel):
    """Whole images, (N, H, W, C) uint8, RGB, upright, to answers; outputs as of `ServedModel`."""

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__(trained)
        self.side = trained.preprocess.side

    def normalized(self, images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        side: Any = torch.sym_min(height, width)  # a number, while it is traced a symbol
        kept = torch.arange(side, device=images.device)  # the tracer does not see what a slice leaves (torch 2.15)
        rows = images.index_select(1, (height - side) // 2 + kept)
        squares = rows.index_select(2, (width - side) // 2 + kept).permute(0, 3, 1, 2).float()
        narrowed = _rounded(interpolate(squares, (side, self.side), mode="bilinear", antialias=True))
        resized = _rounded(interpolate(narrowed, (self.side, self.side), mode="bilinear", antialias=True))
        return super().normalized(resized.permute(0, 2, 3, 1))


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor()  # halves up, as torch's uint8 kernel; `round` takes them to even numbers


def adversarial_pictures(side: int, channels: int, squares: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return images to compare on, by size: each (M, H, W, C) uint8.

    Odd sides, strips of 4:1, smaller and larger than the stored square, with the patterns of `adversarial_squares`, and
    with real squares stretched to that size.

    Args:
        squares: (M, side, side, C) uint8 real images.
    """
    sizes = [(side, side), (side + 1, side), (2 * side + 1, 3 * side), (3 * side + 2, 2 * side + 1)]
    sizes += [(side, 4 * side), (4 * side, side), (max(2, side // 2), max(2, side // 3)), (5 * side + 3, 4 * side)]
    found = {}
    for height, width in sizes:
        large = adversarial_squares(max(height, width), channels)[:, :height, :width]
        if squares is not None:
            chosen = torch.from_numpy(squares[:: max(1, len(squares) // _REAL)][:_REAL]).permute(0, 3, 1, 2)
            real = interpolate(chosen, (height, width), mode="bilinear", antialias=True).permute(0, 2, 3, 1).numpy()
            large = np.concatenate([real, large])
        found[f"{height}x{width}"] = np.ascontiguousarray(large)
    return found
