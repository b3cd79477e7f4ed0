"""Short ways to decode that only tests need."""

from pathlib import Path

import numpy as np

from raytricks.data.decode import Decoder, DecodeSpec, decode_bytes, read_file
from raytricks.data.decoding_store import FileStore


def decode_image(path: Path, spec: DecodeSpec, decoder: Decoder = "torchvision") -> np.ndarray:
    """Decode one file."""
    return decode_bytes(read_file(path), spec, str(path), decoder)


def store_in_memory(paths, spec: DecodeSpec, heights: np.ndarray, widths: np.ndarray):
    """Decode files once into memory."""
    return FileStore(paths, spec).in_memory(heights, widths)
