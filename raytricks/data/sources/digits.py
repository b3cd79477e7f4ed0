"""scikit-learn's digits: 1,797 real 8x8 grayscale images, embedded, no download."""

import numpy as np

from raytricks.data.catalog import ArrayImages, Split

CLASS_NAMES = tuple("0123456789")
_LARGEST_VALUE = 16  # the images hold 0..16


def load_digits_split() -> Split:
    """Return all 1,797 images, scaled to 0..255, with their labels."""
    from sklearn.datasets import load_digits  # a second of import, paid only for this data

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / _LARGEST_VALUE)).astype(np.uint8)[:, None]
    return Split(digits.target.astype(np.int64), ArrayImages(pixels), "the 1,797 digits")
