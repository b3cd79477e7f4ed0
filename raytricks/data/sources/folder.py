"""A folder of class folders: DATA/class/image.jpg, or DATA/train/class/... with val/ or test/."""

from pathlib import Path

import numpy as np

from raytricks.config.schema import DataConfig
from raytricks.data.class_names import in_class_order, look_alike_notes, readable, some
from raytricks.data.image_formats import IMAGE_SUFFIXES
from raytricks.data.sources.files import FileListing, ListedFiles, open_listing
from raytricks.data.sources.layout import WANTED, LayoutSetting, find_layout
from raytricks.data.sources.walk import LeftOut, content_of, images_below
from raytricks.data.splits import FoundSplits
from raytricks.errors import DataError
from raytricks.parts.hooks import Hooks
from raytricks.suggest import did_you_mean


def load_folder(directory: Path, layout: LayoutSetting = "auto", group: str | None = None) -> FoundSplits:
    """Scan a data folder; reads each image's header, decodes nothing.

    Args:
        layout, group: settings of `data`.

    Raises:
        DataError: as of `list_folder`, or a file that is no image.
    """
    return open_listing(list_folder(directory, layout), group)


def open_splits(config: DataConfig) -> FoundSplits:
    """Scan the folder that data.path names."""
    return load_folder(Path(config.path or "").expanduser(), config.layout, config.group)


def list_folder(directory: Path, layout: LayoutSetting = "auto") -> FileListing:
    """Find the image files of a data folder; opens only those without a usual suffix.

    Classes are numbered by the training images, in `in_class_order`; other splits are mapped by name.

    Raises:
        DataError: missing, not a folder, no class folders, an empty class, fewer than two
            classes, a class that the training images lack, or a layout that can be read in two ways.
    """
    _require_directory(directory)
    left_out, notes = LeftOut(), ()
    found = find_layout(directory, layout, left_out)
    class_names = in_class_order(found.class_dirs["train"])
    if len(class_names) < 2:
        table = next((path for path in sorted(directory.glob("*.csv"))), None)
        hint = "" if table is None else f"; to take the classes from a table, name it: {table}"
        raise DataError(f"{directory}: only one class, {', '.join(class_names)!r}; at least 2 are needed{hint}")
    splits = {}
    for split, class_dirs in found.class_dirs.items():
        of_split = f"{found.origins[split]}/" if len(found.class_dirs) > 1 else ""
        images = {name: _images_of(of_split + name, folders, left_out) for name, folders in class_dirs.items()}
        if split != "train":
            images = {name: paths for name, paths in images.items() if paths}
            if not images:
                left_out.beside.append(f"{found.origins[split]}/ (no images)")
                continue
        _require_known_classes(directory, found.origins[split], images, class_names)
        for name, folders in class_dirs.items():
            if not images.get(name) and split == "train":
                raise _empty_class(folders[0], name)
            if len(folders) > 1 and len({folder.name for folder in folders}) > 1:
                merged = " and ".join(repr(folder.name) for folder in folders)
                notes += (f"{directory}: the folders {merged} of {found.origins[split]} are one class, {name!r}",)
        splits[split] = _listed(directory, images, class_names, found.origins[split])
    notes += left_out.notes(directory) + look_alike_notes(directory, class_names)
    return FileListing(directory.resolve().name, class_names, splits, notes)


def _require_directory(directory: Path) -> None:
    if not directory.exists():
        raise DataError(f"{directory}: no such data directory; {WANTED}")
    if not directory.is_dir():
        raise DataError(f"{directory}: is a file, not a data directory; {WANTED}")


def _images_of(name: str, folders: list[Path], left_out: LeftOut) -> list[str]:
    return [path for folder in folders for path in images_below(folder, left_out, name)]


def _empty_class(folder: Path, name: str) -> DataError:
    try:
        content_of(folder, LeftOut())
    except OSError as error:
        return DataError(f"{folder}: cannot be read ({error.strerror}); check your access to it")
    return DataError(
        f"{folder}: class {name!r} has no image ({', '.join(IMAGE_SUFFIXES)}); add some or remove the folder"
    )


def _require_known_classes(
    directory: Path, origin: str, images: dict[str, list[str]], class_names: tuple[str, ...]
) -> None:
    unknown = [name for name in images if name not in class_names]
    if unknown:
        raise DataError(
            f"{directory}: {origin} has images of {some(unknown)}, of which there are none to train on (there are of "
            f"{some(class_names)}); add some or remove them{did_you_mean(unknown[0], class_names, 1)}"
        )


def _listed(directory: Path, images: dict[str, list[str]], class_names: tuple[str, ...], origin: str) -> ListedFiles:
    in_order = [(label, path) for label, name in enumerate(class_names) for path in images.get(name, ())]
    paths = tuple(path for _, path in in_order)
    names = tuple(readable(path.removeprefix(f"{directory}/")) for path in paths)
    return ListedFiles(paths, np.array([label for label, _ in in_order], np.int64), origin, names)


def _holds(path: str) -> bool:
    """What no other source recognises is taken for a folder, which says what is wrong with it."""
    return True


HOOKS = Hooks(build=open_splits, holds=_holds)
