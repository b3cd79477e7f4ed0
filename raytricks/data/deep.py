"""Images of more than 8 bits a value: scaled by the range of the data's own values, measured once.

Sensors fill part of their 16 bits (12 of them, or 900 to 5,000), so a fixed scale would leave a few levels of gray. The
range is measured over the training images, holds for all splits, and is kept with the model for prediction.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import io

import numpy as np
from PIL import Image
import torch
import torchvision  # noqa: F401 (its import registers torch.ops.image)

from raytricks.data.image_formats import FULL_RANGE, RefusedImage, is_deep, naming, open_image

ValueRange = tuple[float, float]
_SAMPLED_VALUES = 4_000_000
_TAIL = 5e-4  # of the values at each end, which may be broken pixels
_DECODE_PNG = getattr(torch.ops.image, "decode_png", None)  # deprecated since 0.29
_UNCHANGED = 0  # value of torchvision.io.ImageReadMode
_LUMA = (0.299, 0.587, 0.114)  # Pillow's "L" (ITU-R 601-2)


def deep_values(image: Image.Image, content: bytes | memoryview) -> np.ndarray:
    """Return the (C, H, W) float32 values of a just opened image for which `is_deep` holds; C 1 to 4, alpha last.

    Raises:
        RefusedImage: a value is no number.
    """
    if image.format == "PNG" and image.mode not in ("I;16", "I"):  # Pillow keeps 8 bits of 16-bit colours
        values = _sixteen_bit_colours(image, content)
    else:
        values = np.asarray(image)[None].astype(np.float32)
    if not np.isfinite(values).all():
        raise RefusedImage("holds values that are no numbers; save it without them")
    return values


def _sixteen_bit_colours(image: Image.Image, content: bytes | memoryview) -> np.ndarray:
    if _DECODE_PNG is None:  # a torchvision that is built without it
        return np.asarray(image).transpose(2, 0, 1).astype(np.float32) * 257
    return _DECODE_PNG(torch.frombuffer(bytearray(content), dtype=torch.uint8), _UNCHANGED).float().numpy()


def scaled_values(
    image: Image.Image, content: bytes | memoryview, value_range: ValueRange, channels: int
) -> np.ndarray:
    """Return a deep image as (c, H, W) uint8: the range's ends become 0 and 255, transparency is laid on white.

    Args:
        channels: c for colour images; a gray one has c = 1.
    """
    values, (low, high) = deep_values(image, content), value_range
    scaled = (values - low) * (255 / (high - low))
    key = image.info.get("transparency")
    if len(values) == 1 and isinstance(key, int):
        scaled[values == key] = 255
    if len(values) in (2, 4):
        opaque = values[-1:] / FULL_RANGE[1]
        scaled = scaled[:-1].clip(0, 255) * opaque + 255 * (1 - opaque)
    if len(scaled) == 3 and channels == 1:
        scaled = np.tensordot(np.array(_LUMA, np.float32), scaled, (0, 0))[None]
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def resized_sixteen_bits(
    content: bytes | memoryview, name: str, resize: Callable[[torch.Tensor], torch.Tensor]
) -> bytes | None:
    """Return a smaller gray image as 16-bit PNG, whose range can still be measured; None where it has no such form.

    Args:
        resize: of (1, H, W) float32.
    """
    with naming(name), open_image(io.BytesIO(content)) as image:
        if image.mode not in ("I;16", "I;16B", "I;16L", "I") or "transparency" in image.info:
            return None
        values = deep_values(image, content)
        if values.min() < FULL_RANGE[0] or values.max() > FULL_RANGE[1]:
            return None
        smaller = resize(torch.from_numpy(values)).round().clamp(*FULL_RANGE).numpy()[0].astype(np.uint16)
        file = io.BytesIO()
        Image.fromarray(smaller).save(file, "PNG")
        return file.getvalue()


def measure_range(encoded: Callable[[int], tuple[bytes | memoryview, str]], indices: Sequence[int]) -> ValueRange:
    """Return the lowest and the highest value of the deep ones among some images; reads each once, in threads.

    Where a few values, such as broken pixels, would take more than half of the range for themselves, they are left out.

    Args:
        encoded: index -> (file content, name for messages).
    """
    share = max(64, _SAMPLED_VALUES // max(1, len(indices)))

    def look_at(index: int) -> tuple[float, float, np.ndarray] | None:
        content, name = encoded(index)
        with naming(name), open_image(io.BytesIO(content)) as image:
            if not is_deep(image):
                return None
            values = deep_values(image, content)
            colours = values[:-1] if len(values) in (2, 4) else values
            flat = colours.ravel()
            return float(flat.min()), float(flat.max()), flat[:: -(-len(flat) // share)]

    with ThreadPoolExecutor() as pool:
        seen = [row for row in pool.map(look_at, indices) if row is not None]
    if not seen:
        return FULL_RANGE
    low, high = min(row[0] for row in seen), max(row[1] for row in seen)
    inner_low, inner_high = np.quantile(np.concatenate([row[2] for row in seen]), (_TAIL, 1 - _TAIL)).tolist()
    if inner_high > inner_low and high - low > 2 * (inner_high - inner_low):
        low, high = inner_low, inner_high
    return low, high if high > low else low + 1
