"""Crop and resize a whole batch at once, each image with its own box.

Antialiased bilinear resampling is separable, so each image is `rows @ image @ columns` with
small weight matrices built from its box: two batched matrix products, on any device, with
the flip folded into the columns. Agrees with torchvision's `resized_crop(antialias=True)`.
The size of the canvas may change the order of the sums, so the last bit of a result, nothing else.
"""

import torch
from torch import Tensor


def resample_weights(starts: Tensor, sizes: Tensor, length: int, out_size: int) -> Tensor:
    """Build the 1-d resampling matrices of a batch of intervals.

    Args:
        starts, sizes: (N,) first pixel and number of pixels of each interval, whole numbers.
        length: pixels along this axis of the canvas.
        out_size: pixels wanted.

    Returns:
        (N, out_size, length) float32, each row summing to 1 inside its interval.
    """
    device = starts.device
    starts, sizes = starts.float()[:, None, None], sizes.float()[:, None, None]
    scale = sizes / out_size
    support = scale.clamp(min=1.0)  # wider than a pixel only when shrinking: the antialiasing
    centres = starts + (torch.arange(out_size, device=device)[None, :, None] + 0.5) * scale
    pixels = torch.arange(length, device=device)[None, None, :] + 0.5
    weights = (1 - (pixels - centres).abs() / support).clamp(min=0)
    weights = weights * ((pixels > starts) & (pixels < starts + sizes))
    return weights / weights.sum(dim=2, keepdim=True)


def crop_and_resize(images: Tensor, boxes: Tensor, out_size: int, flip: Tensor | None = None) -> Tensor:
    """Cut each image's box and resize it to a square.

    Args:
        images: (N, C, H, W) uint8 or float.
        boxes: (N, 4) top, left, height, width in pixels, inside the image.
        out_size: side of the result.
        flip: (N,) bool, mirror these horizontally.

    Returns:
        (N, C, out_size, out_size) float32, on the scale of the input.

    Source: Pillow's antialiased bilinear filter; boxes as in torchvision's `resized_crop`.
    """
    top, left, height, width = boxes.to(images.device).unbind(1)
    rows = resample_weights(top, height, images.shape[2], out_size)
    columns = resample_weights(left, width, images.shape[3], out_size)
    if flip is not None:
        columns = torch.where(flip.to(images.device)[:, None, None], columns.flip(1), columns)
    count, channels, canvas_height, _ = images.shape
    narrowed = images.float().flatten(1, 2) @ columns.transpose(1, 2)
    return rows[:, None] @ narrowed.view(count, channels, canvas_height, out_size)
