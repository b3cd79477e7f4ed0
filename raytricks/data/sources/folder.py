"""A folder of class folders: DATA/class/image.jpg, or DATA/train/class/... with val/ or test/."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raytricks.config.schema import DataConfig
from raytricks.data.header_scan import read_headers
from raytricks.data.image_formats import IMAGE_SUFFIXES
from raytricks.data.sources.walk import LeftOut, images_below
from raytricks.data.splits import FoundSplits, Split
from raytricks.errors import DataError
from raytricks.parts.hooks import Hooks

LAYOUT = "wanted: DIR/CLASS/*.jpg, or DIR/train/CLASS/*.jpg with DIR/val/CLASS/*.jpg"
_EVALUATION_NAMES = ("val", "validation", "valid")
_SHOWN_CLASSES = 5


@dataclass(frozen=True)
class ListedFiles:
    """Image files with their labels; none was opened."""

    paths: tuple[str, ...]
    labels: np.ndarray
    origin: str


@dataclass(frozen=True)
class FolderListing:
    """The files of each split ("train", "val", "test") of a folder."""

    class_names: tuple[str, ...]
    splits: dict[str, ListedFiles]
    notes: tuple[str, ...]


def load_folder(directory: Path) -> FoundSplits:
    """Scan a data folder; reads each image's header, decodes nothing.

    Raises:
        DataError: as of `list_folder`, or a file that is no image.
    """
    listing = list_folder(directory)
    splits = {name: Split(s.labels, read_headers(s.paths), s.origin) for name, s in listing.splits.items()}
    name = directory.resolve().name
    return FoundSplits(name, listing.class_names, splits["train"], splits.get("val"), splits.get("test"), listing.notes)


def open_splits(config: DataConfig) -> FoundSplits:
    """Scan the folder that data.path names."""
    return load_folder(Path(config.path or "").expanduser())


def list_folder(directory: Path) -> FolderListing:
    """Find the image files of a data folder; opens none.

    Raises:
        DataError: missing, not a folder, no class folders, an empty class, fewer than two
            classes, or other classes in another split.
    """
    _require_directory(directory)
    train_dir = directory / "train"
    if not train_dir.is_dir():
        _require_no_lone_split(directory)
        names, files, notes = _scan(directory, "the images")
        return FolderListing(names, {"train": files}, notes)
    names, files, notes = _scan(train_dir, "train")
    splits = {"train": files}
    for kind, folder_names in (("val", _EVALUATION_NAMES), ("test", ("test",))):
        found = next((directory / name for name in folder_names if (directory / name).is_dir()), None)
        if found is not None:
            other_names, splits[kind], other_notes = _scan(found, found.name)
            _require_equal_classes(names, other_names, found)
            notes += other_notes
    return FolderListing(names, splits, notes)


def _require_directory(directory: Path) -> None:
    if not directory.exists():
        raise DataError(f"{directory}: no such data directory; {LAYOUT}")
    if not directory.is_dir():
        raise DataError(f"{directory}: is a file, not a data directory; {LAYOUT}")


def _require_no_lone_split(directory: Path) -> None:
    lone = [name for name in (*_EVALUATION_NAMES, "test") if _holds_folders(directory / name)]
    if lone:  # else val/ and test/ would be taken for two classes
        raise DataError(f"{directory}: holds {lone[0]}/ but no train/; {LAYOUT}")


def _holds_folders(directory: Path) -> bool:
    return directory.is_dir() and any(d.is_dir() for d in _content(directory))


def _content(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise DataError(f"{directory}: cannot be read ({error.strerror}); check your access to it") from None


def _scan(directory: Path, origin: str) -> tuple[tuple[str, ...], ListedFiles, tuple[str, ...]]:
    class_dirs = sorted(d for d in _content(directory) if d.is_dir() and not d.name.startswith("."))
    if not class_dirs:
        raise DataError(f"{directory}: holds {_describe_content(directory)} but no class folders; {LAYOUT}")
    paths: list[str] = []
    labels: list[int] = []
    left_out = LeftOut()
    for label, class_dir in enumerate(class_dirs):
        images = images_below(class_dir, left_out)
        if not images:
            _content(class_dir)  # says why, where the folder cannot be read
            raise DataError(
                f"{class_dir}: class {class_dir.name!r} has no image ({', '.join(IMAGE_SUFFIXES)}); "
                "add some or remove the folder"
            )
        paths += images
        labels += [label] * len(images)
    if len(class_dirs) < 2:
        raise DataError(f"{directory}: only one class, {class_dirs[0].name!r}; at least 2 are needed")
    files = ListedFiles(tuple(paths), np.array(labels), origin)
    return tuple(d.name for d in class_dirs), files, left_out.notes(directory)


def _require_equal_classes(names: tuple[str, ...], other_names: tuple[str, ...], other: Path) -> None:
    missing, extra = sorted(set(names) - set(other_names)), sorted(set(other_names) - set(names))
    if missing or extra:
        parts = [f"only in train: {_shorten(missing)}"] if missing else []
        parts += [f"only in {other.name}: {_shorten(extra)}"] if extra else []
        raise DataError(f"{other}: its classes differ from train's; {'; '.join(parts)}; make them equal")


def _shorten(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN_CLASSES])
    return shown + (f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else "")


def _describe_content(directory: Path) -> str:
    files = [f for f in _content(directory) if f.is_file()]
    images = sum(f.suffix.lower() in IMAGE_SUFFIXES for f in files)
    return "nothing" if not files else f"{len(files)} files ({images} images)"


def _holds(path: str) -> bool:
    """What no other source recognises is taken for a folder, which says what is wrong with it."""
    return True


HOOKS = Hooks(build=open_splits, holds=_holds)
