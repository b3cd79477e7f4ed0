"""Images to score that look almost like one to train on: frames of a clip, patches of a slide, edited copies.

Each image is reduced to 256 bits: is a cell of a 16 x 17 grid brighter than the one to its right? Copies that were
compressed or resized again differ in few of them, other photos in about 128.

Source: Krawetz 2013, difference hash.
"""

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
_ROWS, _COLUMNS = 16, 17
_FEWEST_EDGES = 64  # cells that differ from their neighbour by more than a grey level; plain images are all alike
_MOST_TRAINED, _MOST_SCORED = 20_000, 2_000
_MOST_BYTES = 2**30  # of pixels to look at in a split: a second or two
_CHUNK = 64


def likeness_notes(splits: DatasetSplits, data: PreparedData) -> list[str]:
    """Return a note for each split to score that holds images almost like training images.

    Only images that are files and are decoded in memory are looked at, of many an even sample.
    """
    notes = []
    trained = _bits(splits.train, data.train, _MOST_TRAINED)
    for split, images in ((splits.evaluation, data.evaluation), (splits.test, data.test)):
        scored = None if split is None or images is None else _bits(split, images, _MOST_SCORED)
        if trained is None or scored is None or split is None:
            continue
        found = _pairs(scored, trained)
        if found:
            one, other = found[0]
            number, verb = ("one", "looks") if len(found) == 1 else (f"{len(found):,}", "look")
            share = "" if len(scored[0]) == len(split) else f" looked at, of {len(split):,}"
            notes.append(
                f"{number} of {len(scored[0]):,} images{share} of {split.origin} {verb} almost like a training image "
                f"({one} and {other}): if they are frames of a clip, patches of one thing or edited copies, scores "
                "flatter; hold out whole groups with data.group"
            )
    return notes


def _bits(split: Split, images: LabelledImages, most: int) -> tuple[list[str], Tensor] | None:
    """Return the paths of images with some structure, and their (n, 256) bits as +1 and -1."""
    files, store = split.images, images.images
    if not isinstance(files, FileImages) or not isinstance(store, UniformStore | RaggedStore) or not len(store):
        return None
    heights, widths = store.sizes(np.arange(len(store)))
    most = min(most, len(store), max(1, int(_MOST_BYTES // max(1.0, store.channels * np.mean(heights * widths)))))
    chosen = np.unique(np.linspace(0, len(store) - 1, most).astype(np.int64))
    chosen = chosen[np.minimum(heights, widths)[chosen] >= FEWEST_PIXELS]
    if not len(chosen):
        return None
    parts = [_steps(store, part) for part in np.array_split(chosen, -(-len(chosen) // _CHUNK))]
    steps = torch.cat(parts)
    has_structure = (steps.abs() > 1).sum(dim=1) >= _FEWEST_EDGES
    paths = [files.paths[index] for index, has in zip(chosen.tolist(), has_structure.tolist(), strict=True) if has]
    return (paths, torch.where(steps[has_structure] > 0, 1.0, -1.0)) if paths else None


def _steps(store: UniformStore | RaggedStore, indices: np.ndarray) -> Tensor:
    """Return how much darker each cell's right neighbour is: (n, 256), grey levels."""
    canvas = store.read(indices)
    middle = canvas.pixels[:, canvas.pixels.shape[1] // 2]  # green says most of what gray would
    if len(set(zip(canvas.heights.tolist(), canvas.widths.tolist(), strict=True))) == 1:
        cells = _cells(middle[:, : int(canvas.heights[0]), : int(canvas.widths[0])])
    else:
        sizes = zip(middle, canvas.heights.tolist(), canvas.widths.tolist(), strict=True)
        cells = torch.cat([_cells(image[None, :height, :width]) for image, height, width in sizes])
    return (cells[..., :-1] - cells[..., 1:]).flatten(1)


def _cells(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images[:, None].float(), (_ROWS, _COLUMNS))[:, 0]


def _pairs(scored: tuple[list[str], Tensor], trained: tuple[list[str], Tensor]) -> list[tuple[str, str]]:
    """Return each scored image whose nearest training image differs in few bits, with that image."""
    (names, bits), (trained_names, trained_bits) = scored, trained
    pairs = []
    for start in range(0, len(bits), 256):
        agreement, nearest = (bits[start : start + 256] @ trained_bits.T).max(dim=1)
        differing = (bits.shape[1] - agreement) / 2
        for row in torch.nonzero(differing <= MOST_BITS).flatten().tolist():
            pairs.append((names[start + row], trained_names[int(nearest[row])]))
    return pairs
