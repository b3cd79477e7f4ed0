"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

Source: format description at the end of yann.lecun.com/exdb/mnist (magic number, big-endian
dimensions, bytes).
"""

import gzip
import math
from pathlib import Path
from typing import BinaryIO
import zlib

import numpy as np

from raytricks.config.schema import DataConfig
from raytricks.data.splits import ArrayImages, FoundSplits, Split
from raytricks.errors import DataError
from raytricks.parts.hooks import Hooks

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_DIRECTORIES = (
    Path("/usr/share/datasets/fashion-mnist"),  # Debian's dataset-fashion-mnist
    Path("~/.cache/raytricks/FashionMNIST/raw").expanduser(),  # torchvision's download
)
_FILES = {split: (f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte") for split in ("train", "t10k")}
_UNSIGNED_BYTE = 0x08
_PART_BYTES = 2**24


def holds_idx_files(directory: Path) -> bool:
    """Whether the directory holds the training images of an IDX data set."""
    return _find(directory, _FILES["train"][0]) is not None


def load_idx_split(directory: Path, split: str) -> Split:
    """Read the images and labels of `train` or `t10k`; raises DataError with the file's name."""
    paths = []
    for name in _FILES[split]:
        path = _find(directory, name)
        if path is None:
            raise DataError(f"{directory}: {name} (or {name}.gz) is missing; all four IDX files are needed")
        paths.append(path)
    images, labels = (_read(path, rank) for path, rank in zip(paths, (3, 1), strict=True))
    if len(images) != len(labels):
        raise DataError(f"{paths[0]} holds {len(images)} images, {paths[1]} {len(labels)} labels; they must be equal")
    return Split(labels.astype(np.int64), ArrayImages(images[:, None]), split)


def find_fashion_mnist(path: str | None, download: bool) -> Path:
    """Return the directory that holds Fashion-MNIST, downloading it only when allowed."""
    candidates = [Path(path).expanduser()] if path else list(FASHION_MNIST_DIRECTORIES)
    for directory in candidates:
        if holds_idx_files(directory) and (path or _is_complete(directory)):
            return directory
    if download and not path:
        return _download_fashion_mnist()
    raise DataError(
        f"no Fashion-MNIST in {', '.join(str(d) for d in candidates)}; install Debian's "
        "dataset-fashion-mnist, set data.path to a directory of the four IDX files, or set data.download=true"
    )


def _is_complete(directory: Path) -> bool:
    """Whether all four files are there: a download that was interrupted goes on."""
    return all(_find(directory, name) is not None for names in _FILES.values() for name in names)


def _download_fashion_mnist() -> Path:
    from torchvision.datasets import FashionMNIST

    directory = FASHION_MNIST_DIRECTORIES[-1]
    try:
        FashionMNIST(str(directory.parent.parent), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"Fashion-MNIST cannot be downloaded ({error}); set data.path instead") from None
    return directory


def _find(directory: Path, name: str) -> Path | None:
    return next((p for p in (directory / name, directory / f"{name}.gz") if p.is_file()), None)


def _read(path: Path, rank: int) -> np.ndarray:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            header = file.read(4 + 4 * rank)
            if len(header) < 4 + 4 * rank or header[:4] != bytes((0, 0, _UNSIGNED_BYTE, rank)):
                raise DataError(
                    f"{path}: not an IDX file of unsigned bytes with {rank} dimensions; fetch the right file"
                )
            shape = tuple(np.frombuffer(header, ">u4", rank, 4).tolist())
            content = _at_most(file, math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch the file again") from None
    if len(content) != math.prod(shape) or 0 in shape:
        held = f"more than {len(content) - 1}" if len(content) > math.prod(shape) else str(len(content))
        raise DataError(f"{path}: holds {held} bytes, its header says {shape}; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _at_most(file: BinaryIO | gzip.GzipFile, limit: int) -> bytes:
    """Read to the end or to a limit: a header may say anything, a small gzip file may hold any number of bytes."""
    parts: list[bytes] = []
    while limit > 0 and (part := file.read(min(limit, _PART_BYTES))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def open_directory(config: DataConfig) -> FoundSplits:
    """Read the four IDX files of data.path."""
    path = Path(config.path or "").expanduser()
    return _opened(path, path.resolve().name, is_fashion="fashion" in path.resolve().name.lower())


def open_fashion_mnist(config: DataConfig) -> FoundSplits:
    """Read Fashion-MNIST from data.path, from Debian's package or from torchvision's download."""
    return _opened(find_fashion_mnist(config.path, config.download), "fashion_mnist", is_fashion=True)


def _opened(path: Path, name: str, *, is_fashion: bool) -> FoundSplits:
    train, test = (load_idx_split(path, split) for split in ("train", "t10k"))
    _require_labels_in_range(train, test, path)
    return FoundSplits(name, _class_names(path, train, is_fashion=is_fashion), train, test=test)


def _class_names(path: Path, train: Split, *, is_fashion: bool) -> tuple[str, ...]:
    num_classes = int(train.labels.max()) + 1
    if is_fashion and num_classes == len(FASHION_MNIST_CLASSES):
        return FASHION_MNIST_CLASSES
    return tuple(str(label) for label in range(num_classes))


def _require_labels_in_range(train: Split, test: Split, path: Path) -> None:
    num_classes = int(train.labels.max()) + 1
    if num_classes < 2:
        raise DataError(f"{path}: all training labels are 0; at least 2 classes are needed")
    if int(test.labels.max()) >= num_classes:
        raise DataError(
            f"{path}: a test label is {test.labels.max()}, the training labels end at {num_classes - 1}; "
            "the files do not belong together"
        )


def _holds(path: str) -> bool:
    return "://" not in path and holds_idx_files(Path(path).expanduser())


IDX = Hooks(build=open_directory, holds=_holds)
FASHION_MNIST = Hooks(build=open_fashion_mnist)
