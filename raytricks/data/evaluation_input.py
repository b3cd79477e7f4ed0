"""Any picture, from wherever it comes, as the square of pixels that evaluation reads: one way for all entrances.

A store of training data comes to the same pixels through the same two functions of `raytricks.data.decode`.
"""

from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile
import torch
from torch import Tensor

from raytricks.data.augmentation import Transform, central_squares
from raytricks.data.decode import DecodeSpec, decode_bytes, decode_crop, resize_crop, resize_values, upright
from raytricks.data.image_formats import header_of, naming, orientation_of_loaded, read_file, to_eight_bits
from raytricks.data.jpeg import Decoder
from raytricks.errors import DataError

_LUMA = (0.299, 0.587, 0.114)  # of ITU-R 601-2, as Pillow's "L"


@dataclass(frozen=True)
class EvaluationInput:
    """How pictures become stored squares, uint8, and these model input.

    Attributes:
        channels: 1 grayscale, 3 RGB.
        decoder: of JPEGs.
    """

    transform: Transform
    channels: int
    decoder: Decoder = "torchvision"

    @property
    def side(self) -> int:
        """Pixels of the stored square's side; the model sees its centre where images are read as crops."""
        return self.transform.evaluation_side if self.transform.crops else self.transform.image_size

    def spec(self) -> DecodeSpec:
        """Return the form that a store keeps evaluation images in: squares, or whole to cut the centre out of."""
        side, transform = (None if self.transform.crops else self.side), self.transform
        return DecodeSpec(side, square=side is not None, channels=self.channels, value_range=transform.value_range)

    def __call__(self, picture: Any) -> Tensor:
        """Return the model input of one picture, as of `square`: (C, S, S) float32."""
        return self.model_input(self.square(picture)[None])[0]

    def square(self, picture: Any, name: str = "the picture") -> Tensor:
        """Return the square of a picture, whatever it is given as.

        Args:
            picture: a path, the bytes of a file, a PIL image, an (H, W[, 3]) array, or a (C, H, W) tensor.
            name: what errors call a picture without a path.

        Raises:
            DataError: it cannot be read, or is nothing of these.
        """
        if isinstance(picture, str | os.PathLike):
            return self.of_file(os.fspath(picture))
        if isinstance(picture, bytes | bytearray | memoryview):
            return self.of_encoded(bytes(picture), name)
        if isinstance(picture, Image.Image):
            return self.of_pil(picture, getattr(picture, "filename", "") or name)
        if isinstance(picture, np.ndarray):
            return self.of_array(picture, name)
        if isinstance(picture, Tensor):
            return self.of_pixels(picture.cpu(), name)
        raise DataError(
            f"{name}: must be a path, bytes, a PIL image, an array or a tensor, got {type(picture).__name__}"
        )

    def of_encoded(self, content: bytes | memoryview, name: str) -> Tensor:
        """Return the (C, side, side) uint8 square of an encoded image; raises DataError naming it."""
        transform = self.transform
        if not transform.crops:
            return torch.from_numpy(decode_bytes(content, self.spec(), name, self.decoder))
        size = _size_of(content, name)
        box = central_squares(*(np.array([length]) for length in size))[0]
        return decode_crop(
            content, box, self.side, self.channels, name, self.decoder, value_range=transform.value_range
        )

    def of_file(self, path: str | Path) -> Tensor:
        """Return the square of an image file; raises DataError naming it."""
        return self.of_encoded(read_file(Path(path).expanduser()), str(path))

    def of_pil(self, image: Image.Image, name: str = "the image") -> Tensor:
        """Return the square of a Pillow image, turned as its EXIF says.

        One just opened from a file is read as the file is; of one whose pixels are loaded, large JPEGs were decoded
        in full and differ by rounding from the file's square.
        """
        if isinstance(image, ImageFile.ImageFile) and image.tile and getattr(image, "fp", None) is not None:
            assert image.fp is not None
            image.fp.seek(0)
            return self.of_encoded(image.fp.read(), name)
        with naming(name):
            orientation = orientation_of_loaded(image)
            eight = to_eight_bits(image, "L" if self.channels == 1 else "RGB")
            pixels = np.array(eight)
        pixels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
        if self.transform.crops:  # a file's are turned before the centre is cut out, else when the square is made
            return self.of_pixels(torch.from_numpy(upright(pixels, orientation).copy()), name)
        square = self.of_pixels(torch.from_numpy(pixels), name)
        return torch.from_numpy(upright(square.numpy(), orientation).copy())

    def of_array(self, values: np.ndarray, name: str = "the array") -> Tensor:
        """Return the square of an (H, W), (H, W, 1) or (H, W, 3) array: uint8, RGB; floats in 0..1.

        Raises:
            DataError: another shape, type or range.
        """
        if values.ndim == 2:
            values = values[:, :, None]
        if values.ndim != 3 or values.shape[2] not in (1, 3):
            raise DataError(
                f"{name}: must be (H, W), (H, W, 1) or (H, W, 3), got {tuple(values.shape)}; arrays are channels-last "
                "RGB, tensors channels-first"
            )
        return self.of_pixels(torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))), name)

    def of_pixels(self, pixels: Tensor, name: str = "the tensor") -> Tensor:
        """Return the square of (C, H, W) pixels: uint8, or floats in 0..1; C = 1 or 3, RGB.

        Raises:
            DataError: another shape, type or range.
        """
        pixels = self._with_channels(_as_bytes(pixels, name))
        height, width = pixels.shape[1:]
        if not self.transform.crops:
            spec = self.spec()
            if (height, width) == (self.side, self.side):
                return pixels.contiguous()
            return resize_values(pixels.contiguous(), spec)
        box = central_squares(np.array([height]), np.array([width]))[0]
        return resize_crop(pixels.contiguous(), box, self.side).contiguous()

    def model_input(self, squares: Tensor) -> Tensor:
        """Return (N, C, S, S) normalised float32 of (N, C, side, side) squares, on their device."""
        return self.transform.normalize(self.transform.evaluation_pixels(squares))

    def _with_channels(self, pixels: Tensor) -> Tensor:
        if len(pixels) == self.channels:
            return pixels
        if len(pixels) == 1:
            return pixels.expand(self.channels, -1, -1)
        weights = torch.tensor(_LUMA, dtype=torch.float64).view(3, 1, 1)
        return (pixels * weights).sum(0, keepdim=True).round().to(torch.uint8)


def _size_of(content: bytes | memoryview, name: str) -> tuple[int, int]:
    header = header_of(content, name)
    return header.height, header.width


def _as_bytes(pixels: Tensor, name: str) -> Tensor:
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise DataError(f"{name}: must be (1, H, W) or (3, H, W), got {tuple(pixels.shape)}")
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise DataError(f"{name}: must be uint8, or floats in 0..1, got {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not 0 <= low <= high <= 1:
        raise DataError(f"{name}: floats must lie in 0..1, got {low:g} to {high:g}; give uint8, or divide by 255")
    return (pixels.float() * 255).round().to(torch.uint8)
