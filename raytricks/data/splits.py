"""What a data set holds, found without decoding it: splits, labels, class names, sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raytricks.errors import DataError

_SPLIT_STREAM = 2  # keeps this generator apart from the others made of the same seed


@dataclass(frozen=True)
class ArrayImages:
    """Images that are decoded already: (N, C, H, W) uint8."""

    pixels: np.ndarray

    @property
    def heights(self) -> np.ndarray:
        return np.full(len(self.pixels), self.pixels.shape[2])

    @property
    def widths(self) -> np.ndarray:
        return np.full(len(self.pixels), self.pixels.shape[3])

    @property
    def is_grayscale(self) -> bool:
        return self.pixels.shape[1] == 1

    def subset(self, indices: np.ndarray) -> "ArrayImages":
        return ArrayImages(self.pixels[indices])


@dataclass(frozen=True)
class FileImages:
    """Images in files; sizes are those the files' headers give."""

    paths: tuple[str, ...]
    heights: np.ndarray
    widths: np.ndarray
    is_grayscale: bool

    def subset(self, indices: np.ndarray) -> "FileImages":
        paths = tuple(self.paths[i] for i in indices)
        return replace(self, paths=paths, heights=self.heights[indices], widths=self.widths[indices])


@dataclass(frozen=True)
class ShardImages:
    """Encoded images in packed shards; image i is `lengths[i]` bytes from byte `offsets[i]` of its shard.

    Attributes:
        root: directory or URL of the shards.
        files: the shards' names below `root`.
        file_bytes: what each of them must hold; another size is damage.
        digests: sha256 of each of them.
        shards, rows: (N,) index into `files`, and the row there.
        heights, widths: (N,) after EXIF orientation.
    """

    root: str
    files: tuple[str, ...]
    file_bytes: tuple[int, ...]
    digests: tuple[str, ...]
    shards: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    is_grayscale: bool

    def subset(self, indices: np.ndarray) -> "ShardImages":
        columns = ("shards", "rows", "offsets", "lengths", "heights", "widths")
        return replace(self, **{name: getattr(self, name)[indices] for name in columns})

    def name(self, index: int) -> str:
        """Return where an image is, for messages."""
        return f"{self.root.rstrip('/')}/{self.files[self.shards[index]]}: image {self.rows[index]}"


@dataclass(frozen=True)
class DatasetImages:
    """Images of a dataset of several sizes, encoded as they were read from it.

    Attributes:
        encoded: (N,) file contents.
        name: of the dataset, for messages.
    """

    encoded: tuple[bytes, ...]
    name: str
    heights: np.ndarray
    widths: np.ndarray
    is_grayscale: bool

    def subset(self, indices: np.ndarray) -> "DatasetImages":
        encoded = tuple(self.encoded[i] for i in indices)
        return replace(self, encoded=encoded, heights=self.heights[indices], widths=self.widths[indices])


Images = ArrayImages | FileImages | ShardImages | DatasetImages


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
        labels: (N,) int64 in [0, K).
        images: where the pixels are.
        origin: shown to the user, such as "t10k" or "20% held out of train".
    """

    labels: np.ndarray
    images: Images
    origin: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class FoundSplits:
    """The splits that the data itself has; `evaluation` and `test` are None where it has none."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    evaluation: Split | None = None
    test: Split | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSplits:
    """A data set: what is trained on, what is evaluated each epoch, what is scored once.

    Attributes:
        name: short, for run names.
        evaluation: evaluated after each epoch.
        test: scored once after the last epoch; None when `evaluation` is the test split.
        notes: things the user should know, such as ignored files.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    evaluation: Split
    test: Split | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def hold_out(train: Split, fraction: float, seed: int, class_names: Sequence[str]) -> tuple[Split, Split]:
    """Split off a stratified part of the training images.

    Args:
        fraction: in (0, 1); each class gives this part, at least one image.

    Returns:
        (the remaining training split, the held-out split); disjoint, together everything.

    Raises:
        DataError: a class has a single image, which cannot be in both parts.
    """
    rng = np.random.default_rng((seed, _SPLIT_STREAM))
    held_out = np.zeros(len(train), bool)
    for label, name in enumerate(class_names):
        members = rng.permutation(np.flatnonzero(train.labels == label))
        if len(members) < 2:
            raise DataError(
                f"class {name!r} has {len(members)} image, too few to hold {fraction:.0%} out for "
                "evaluation; add images or give a val/ folder"
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[members[:count]] = True
    kept, taken = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return (
        Split(train.labels[kept], train.images.subset(kept), train.origin),
        Split(train.labels[taken], train.images.subset(taken), f"{fraction:.0%} held out of {train.origin}"),
    )
