"""Fast JPEG decoding that releases the GIL; what it cannot read right is left to Pillow.

All three decoders are libjpeg-turbo with the same exact transforms, so they give the same pixels
(simplejpeg's fast transforms would move them by 1 grey level for 5% of the time). Decoded and
resized to a short side of 256, torchvision makes 1.3-1.5 times as many images a second of
500 x 375 files as Pillow, simplejpeg 1.4-1.6 times.
"""

from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from torch import Tensor
import torchvision  # noqa: F401 (its import registers torch.ops.image)

from raytricks.errors import ConfigError

Decoder = Literal["torchvision", "simplejpeg", "pil"]

_DECODERS = ("torchvision", "simplejpeg", "pil")
_READ_GRAY, _READ_RGB = 1, 3  # values of torchvision.io.ImageReadMode
_TORCHVISION_DECODE = getattr(torch.ops.image, "decode_jpeg", None)  # deprecated since 0.29
_OVERSAMPLING = 2  # a reduced decode keeps twice the wanted side, so the antialiasing filter still decides


def require_decoder(decoder: Decoder) -> None:
    """Check before any work that the decoder can be used.

    Raises:
        ConfigError: unknown, or simplejpeg is not installed.
    """
    if decoder not in _DECODERS:
        raise ConfigError(f"data.decoder must be one of {', '.join(_DECODERS)}, got {decoder!r}")
    if decoder == "simplejpeg" and find_spec("simplejpeg") is None:
        raise ConfigError(
            "data.decoder: simplejpeg is not installed; run `pip install simplejpeg` or set data.decoder=torchvision"
        )


def reduction_for(size: tuple[int, int], short_side: int) -> int:
    """Return 8, 4, 2 or 1: by how much both sides may shrink while decoding without a visible difference.

    Args:
        size: width and height, pixels.
    """
    available = min(size) // (_OVERSAMPLING * short_side)
    return next((reduction for reduction in (8, 4, 2) if available >= reduction), 1)


def decode_jpeg(
    content: bytes | memoryview, size: tuple[int, int], channels: int, reduction: int, decoder: Decoder
) -> Tensor | None:
    """Decode a grayscale or three-component JPEG; its header was checked already.

    Args:
        size: width and height that its header states.
        channels: 1 the luma plane, 3 RGB.
        reduction: 1, 2, 4 or 8, what both sides are to be divided by (rounded up).

    Returns:
        (channels, H, W) uint8. None where Pillow has to decode: it was asked for, the bytes are
        damaged (Pillow says how), torchvision would spend its time on pixels that a reduced decode
        skips (it has none), or this torchvision has no decoder.
    """
    try:
        if decoder == "simplejpeg":
            pixels = _decode_with_simplejpeg(content, size, channels, reduction)
        elif decoder == "torchvision" and reduction == 1 and _TORCHVISION_DECODE is not None:
            pixels = _decode_with_torchvision(content, channels)
        else:
            return None
    except (RuntimeError, ValueError):
        return None
    width, height = (-(-side // reduction) for side in size)
    return pixels if pixels.shape == (channels, height, width) else None


def _decode_with_torchvision(content: bytes | memoryview, channels: int) -> Tensor:
    encoded = torch.from_numpy(np.frombuffer(content, np.uint8).copy())  # torch wants memory it may write to
    assert _TORCHVISION_DECODE is not None
    return _TORCHVISION_DECODE(encoded, _READ_GRAY if channels == 1 else _READ_RGB, False)


def _decode_with_simplejpeg(
    content: bytes | memoryview, size: tuple[int, int], channels: int, reduction: int
) -> Tensor:
    import simplejpeg  # an optional extra, which only data.decoder=simplejpeg asks for

    width, height = (-(-side // reduction) for side in size)
    colours = "GRAY" if channels == 1 else "RGB"
    pixels = simplejpeg.decode_jpeg(content, colours, min_height=height, min_width=width, min_factor=reduction)
    return torch.from_numpy(pixels).permute(2, 0, 1)
