"""What a data set holds, found without decoding it: splits, labels, class names, sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raytricks.errors import DataError

WARNING = "warning: "
"""How a note begins that is about something wrong: the doctor tells it. Its last "; " comes before the remedy."""
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

    @property
    def is_deep(self) -> bool:
        return False

    def subset(self, indices: np.ndarray) -> "ArrayImages":
        return ArrayImages(self.pixels[indices])


@dataclass(frozen=True)
class FileImages:
    """Images in files; sizes are those the files' headers give.

    Attributes:
        is_deep: some have more than 8 bits a value.
    """

    paths: tuple[str, ...]
    heights: np.ndarray
    widths: np.ndarray
    is_grayscale: bool
    is_deep: bool = False

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
    is_deep: bool = False

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
    is_deep: bool = False

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
        groups: (N,) what is not to be torn apart by holding out, such as patients; None: every image is its own.
    """

    labels: np.ndarray
    images: Images
    origin: str
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray, origin: str) -> "Split":
        """Return some of the images, under another name."""
        groups = None if self.groups is None else tuple(self.groups[i] for i in indices)
        return Split(self.labels[indices], self.images.subset(indices), origin, groups)


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
    """Split off a stratified part of the training images, in whole groups where there are groups.

    Args:
        fraction: in (0, 1); each class gives this part, at least one image. A class of one image, or of one group,
            gives none.

    Returns:
        (the remaining training split, the held-out split); disjoint, together everything.

    Raises:
        DataError: no class has a second image or group.
    """
    rng = np.random.default_rng((seed, _SPLIT_STREAM))
    if train.groups is None:
        held_out = _part_of_each_class(train.labels, fraction, rng)
    else:
        held_out = _whole_groups(train.labels, train.groups, fraction, rng)
    if not held_out.any():
        each = "one image" if train.groups is None else "one group"
        raise DataError(
            f"no class, such as {class_names[0]!r}, has more than {each}: nothing can be held out of {train.origin} "
            "for evaluation; add images or give a val/ folder"
        )
    kept, taken = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    by = ""
    if train.groups is not None:
        chosen = len({train.groups[i] for i in taken})
        by = f", {chosen:,} of {len(set(train.groups)):,} groups"
    share = f"{100 * len(taken) / len(train):.3g}%"
    return train.subset(kept, train.origin), train.subset(taken, f"{share} held out of {train.origin}{by}")


def _part_of_each_class(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    held_out = np.zeros(len(labels), bool)
    counts = np.bincount(labels)
    for members in np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1]):
        count = min(max(1, round(fraction * len(members))), max(len(members) - 1, 0))
        held_out[rng.permutation(members)[:count]] = True
    return held_out


def _whole_groups(labels: np.ndarray, groups: Sequence[str], fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Take, in random order, each group that brings the classes nearer to their parts and leaves all in train."""
    _, group_of = np.unique(np.array(groups), return_inverse=True)
    members_of = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    counts = np.bincount(labels)
    missing, left = fraction * counts, counts.copy()
    held_out = np.zeros(len(labels), bool)
    for strict in (True, False):  # where every group is too large, the first that leaves all classes in train
        for group in rng.permutation(len(members_of)):
            classes, numbers = np.unique(labels[members_of[group]], return_counts=True)
            gain = (np.abs(missing[classes]) - np.abs(missing[classes] - numbers)) / counts[classes]
            if (left[classes] <= numbers).any() or (strict and gain.sum() <= 0) or (not strict and held_out.any()):
                continue
            held_out[members_of[group]] = True
            missing[classes] -= numbers
            left[classes] -= numbers
    return held_out
