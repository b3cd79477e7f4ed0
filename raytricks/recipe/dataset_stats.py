"""The few stats about a data set that a recipe depends on."""

from dataclasses import dataclass

import numpy as np

from raytricks.data.splits import DatasetSplits

LARGEST_SMALL_IMAGE = 64  # pixels; up to here the ImageNet stem would destroy the image


@dataclass(frozen=True)
class DatasetStats:
    """What the splits says, condensed.

    Attributes:
        native_side: median shorter side of the training images, pixels.
        is_uniform_square: all training images are squares of that side.
    """

    name: str
    num_train: int
    num_classes: int
    native_side: int
    is_uniform_square: bool
    is_grayscale: bool

    @property
    def size_text(self) -> str:
        """Size for people: "28x28" or "about 375 px"."""
        side = self.native_side
        return f"{side}x{side}" if self.is_uniform_square else f"about {side} px"


def stats_of(splits: DatasetSplits) -> DatasetStats:
    """Condense a splits."""
    images = splits.train.images
    shorter = np.minimum(images.heights, images.widths)
    side = int(np.median(shorter))
    return DatasetStats(
        name=splits.name,
        num_train=len(splits.train),
        num_classes=splits.num_classes,
        native_side=side,
        is_uniform_square=bool((images.heights == side).all() and (images.widths == side).all()),
        is_grayscale=images.is_grayscale and (splits.evaluation.images.is_grayscale),
    )
