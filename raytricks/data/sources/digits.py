"""scikit-learn's digits: 1,797 real 8x8 grayscale images, embedded, no download."""

import numpy as np

from raytricks.data.splits import ArrayImages, FoundSplits, Split
from raytricks.parts.hooks import Hooks

CLASS_NAMES = tuple("0123456789")
_LARGEST_VALUE = 16  # the images hold 0..16


def load_digits_split() -> Split:
    """Return all 1,797 images, scaled to 0..255, with their labels."""
    from sklearn.datasets import load_digits  # a second of import, paid only for this data

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8) * (255 / _LARGEST_VALUE)).astype(np.uint8)[:, None]
    return Split(np.asarray(labels, np.int64), ArrayImages(pixels), "the 1,797 digits")


def open_splits() -> FoundSplits:
    """Return the digits; none of them is held out yet."""
    return FoundSplits("digits", CLASS_NAMES, load_digits_split())


HOOKS = Hooks(build=open_splits)
