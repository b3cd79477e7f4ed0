"""Images to score that look almost like one to train on: frames of a clip, patches of a slide, edited copies.

Each image is reduced to 256 bits: is a cell of a 16 x 17 grid brighter than the one to its right? Copies that were
compressed or resized again differ in few of them, other photos in about 80. The few pairs that this finds are
compared again by their pixels, since patterns may share a grid and nothing else.

Source: Krawetz 2013, difference hash.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F

from raytricks.data.prepared import LabelledImages, PreparedData
from raytricks.data.splits import DatasetSplits, FileImages, Split
from raytricks.data.store import RaggedStore, UniformStore

FEWEST_PIXELS = 48
"""Of a side: pictograms and digits of less are alike without being copies."""
MOST_BITS = 10
"""That two almost equal images differ in."""
LEAST_CORRELATION = 0.95
"""Of the pixels of two almost equal images, at 48 x 48."""
_ROWS, _COLUMNS = 16, 17
_FEWEST_EDGES = 64  # cells that differ from their neighbour by more than a grey level; plain images are all alike
_MOST_TRAINED, _MOST_SCORED = 20_000, 2_000
_MOST_BYTES = 2**30  # of pixels to look at in a split: a second or two
_CHUNK = 64


@dataclass(frozen=True)
class _Looked:
    """The images of a split that have some structure.

    Attributes:
        indices: (n,) their numbers.
        bits: (n, 256) +1 and -1.
        num_looked: images that were looked at.
    """

    paths: tuple[str, ...]
    store: UniformStore | RaggedStore
    indices: np.ndarray
    bits: Tensor
    num_looked: int


def likeness_notes(splits: DatasetSplits, data: PreparedData) -> list[str]:
    """Return a note for each split to score that holds images almost like training images.

    Only images that are files and are decoded in memory are looked at, of many an even sample.
    """
    trained = _look(splits.train, data.train, _MOST_TRAINED)
    notes = []
    for split, images in ((splits.evaluation, data.evaluation), (splits.test, data.test)):
        scored = None if split is None or images is None else _look(split, images, _MOST_SCORED)
        pairs = [] if trained is None or scored is None else _pairs(scored, trained)
        if pairs and split is not None and scored is not None:
            notes.append(_note(pairs, split, scored.num_looked))
    return notes


def _note(pairs: list[tuple[str, str]], split: Split, num_looked: int) -> str:
    number, verb = ("one", "looks") if len(pairs) == 1 else (f"{len(pairs):,}", "look")
    share = "" if num_looked == len(split) else f" looked at, of {len(split):,}"
    return (
        f"{number} of {num_looked:,} images{share} of {split.origin} {verb} almost like a training image "
        f"({pairs[0][0]} and {pairs[0][1]}): if they are frames of a clip, patches of one thing or edited copies, "
        "scores flatter; hold out whole groups with data.group"
    )


def _look(split: Split, images: LabelledImages, most: int) -> _Looked | None:
    files, store = split.images, images.images
    if not isinstance(files, FileImages) or not isinstance(store, UniformStore | RaggedStore) or not len(store):
        return None
    heights, widths = store.sizes(np.arange(len(store)))
    most = min(most, len(store), max(1, int(_MOST_BYTES // max(1.0, store.channels * np.mean(heights * widths)))))
    chosen = np.unique(np.linspace(0, len(store) - 1, most).astype(np.int64))
    large = chosen[np.minimum(heights, widths)[chosen] >= FEWEST_PIXELS]
    if not len(large):
        return None
    cells = torch.cat(
        [_cells(store, part, (_ROWS, _COLUMNS)) for part in np.array_split(large, -(-len(large) // _CHUNK))]
    )
    steps = (cells[..., :-1] - cells[..., 1:]).flatten(1)
    has_structure = (steps.abs() > 1).sum(dim=1) >= _FEWEST_EDGES
    if not has_structure.any():
        return None
    bits = torch.where(steps[has_structure] > 0, 1.0, -1.0)
    return _Looked(files.paths, store, large[has_structure.numpy()], bits, len(chosen))


def _cells(store: UniformStore | RaggedStore, indices: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Return the mean grey levels of the cells of a grid over each image: (n, *grid)."""
    canvas = store.read(indices)
    middle = canvas.pixels[:, canvas.pixels.shape[1] // 2]  # green says most of what gray would
    sizes = list(zip(canvas.heights.tolist(), canvas.widths.tolist(), strict=True))
    if len(set(sizes)) == 1:
        return _pooled(middle[:, : sizes[0][0], : sizes[0][1]], grid)
    images = zip(middle, sizes, strict=True)
    return torch.cat([_pooled(image[None, :height, :width], grid) for image, (height, width) in images])


def _pooled(images: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.adaptive_avg_pool2d(images[:, None].float(), grid)[:, 0]


def _pairs(scored: _Looked, trained: _Looked) -> list[tuple[str, str]]:
    """Return the paths of each scored image and the training image that it looks almost like."""
    pairs = []
    for row, bits in enumerate(scored.bits.split(1)):
        agreement, nearest = (trained.bits @ bits[0]).max(dim=0)
        if (bits.shape[1] - agreement) / 2 > MOST_BITS:
            continue
        index, other = scored.indices[row : row + 1], trained.indices[int(nearest)][None]
        if _correlation(scored, index, trained, other) >= LEAST_CORRELATION:
            pairs.append((scored.paths[int(index[0])], trained.paths[int(other[0])]))
    return pairs


def _correlation(scored: _Looked, index: np.ndarray, trained: _Looked, other: np.ndarray) -> float:
    grid = (FEWEST_PIXELS, FEWEST_PIXELS)
    both = torch.stack([_cells(scored.store, index, grid).flatten(), _cells(trained.store, other, grid).flatten()])
    return float(torch.corrcoef(both)[0, 1])
