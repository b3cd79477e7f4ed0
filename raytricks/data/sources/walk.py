"""The image files below a class folder: links are followed, no folder twice, and what is left out is counted."""

from collections.abc import Iterator
from dataclasses import dataclass, field
import os
from pathlib import Path

from raytricks.data.image_formats import IMAGE_SUFFIXES

_SHOWN_FOLDERS = 3


@dataclass
class LeftOut:
    """What of a data folder is not used.

    Attributes:
        suffixes: of files that are no supported images, and how many have each.
        unreadable: folders that could not be listed, with the reason.
        repeated: links to folders that are in their class already.
    """

    suffixes: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def notes(self, directory: Path) -> tuple[str, ...]:
        """Return a line for each kind, for the user."""
        notes = []
        if self.suffixes:
            listed = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.suffixes.items()))
            notes.append(f"{directory}: ignored files that are no supported images: {listed}")
        if self.unreadable:
            notes.append(f"{directory}: left out folders that cannot be read: {_shorten(self.unreadable)}")
        if self.repeated:
            notes.append(f"{directory}: left out links to folders of the same class: {_shorten(self.repeated)}")
        return tuple(notes)


def images_below(class_dir: Path, left_out: LeftOut) -> list[str]:
    """Return the image files below a folder, folder by folder in the order of their names; opens none."""
    images = []
    for parent, names in _folders(class_dir, left_out, visited=set()):
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                images.append(str(parent / name))
            else:
                left_out.suffixes[suffix or "no suffix"] = left_out.suffixes.get(suffix or "no suffix", 0) + 1
    return images


def _folders(folder: Path, left_out: LeftOut, visited: set[tuple[int, int]]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with its files' names; a link to where the walk has been would bring images twice, or for ever.

    Args:
        visited: devices and inodes of the folders that were listed.
    """
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            left_out.repeated.append(str(folder))
            return
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        left_out.unreadable.append(f"{folder} ({error.strerror})")
        return
    yield folder, [name for name, is_folder in found if not is_folder]
    for name, is_folder in found:
        if is_folder:
            yield from _folders(folder / name, left_out, visited)


def _shorten(lines: list[str]) -> str:
    shown = ", ".join(lines[:_SHOWN_FOLDERS])
    return shown + (f" and {len(lines) - _SHOWN_FOLDERS} more" if len(lines) > _SHOWN_FOLDERS else "")
