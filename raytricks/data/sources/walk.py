"""The image files below a class folder: links are followed, no folder twice, and what is left out is counted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
import os
from pathlib import Path

from raytricks.data.class_names import natural_key, some
from raytricks.data.image_formats import IMAGE_SUFFIXES, is_image_file
from raytricks.data.splits import WARNING

_SHOWN_FOLDERS = 3
_SYSTEM_NAMES = frozenset(
    [
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eadir",
        "$recycle.bin",
        "lost+found",
        "__pycache__",
        "icon\r",
    ]
) | {"system volume information"}
_SIDECARS = frozenset(
    [
        ".txt",
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".xml",
        ".md",
        ".yaml",
        ".yml",
        ".html",
        ".htm",
        ".log",
        ".ini",
        ".cfg",
        ".py",
        ".sh",
        ".db",
        ".lnk",
        ".url",
        ".zip",
        ".sha256",
    ]
)
_LARGEST_LOSS = 0.1
_DECODERS = dict.fromkeys((".heic", ".heif", ".hif"), "pip install pillow-heif reads HEIC")


@dataclass
class LeftOut:
    """What of a data folder is not used.

    Attributes:
        read: class, after its split where there are several -> files that are images.
        unread: the same -> suffix -> files that are none that can be read.
        hidden: files and folders of the system's or hidden ones.
        unreadable: folders that could not be listed, with the reason.
        repeated: links to folders that are in their class already.
        beside: other things that lie where only classes or splits are looked for, described.
        inner: folders that are alone in their parents and were looked into.
    """

    read: Counter[str] = field(default_factory=Counter)
    unread: dict[str, Counter[str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    inner: list[str] = field(default_factory=list)

    def notes(self, directory: Path) -> tuple[str, ...]:
        """Return a line for each kind, for the user."""
        notes = [f"{directory}: looked into {some(self.inner)}: nothing else is beside"] if self.inner else []
        if self.unread:
            listed = some([f"{name}: {_listed(suffixes)}" for name, suffixes in self.unread.items()])
            hints = {_DECODERS[suffix] for counts in self.unread.values() for suffix in counts if suffix in _DECODERS}
            hint = "".join(f" ({text})" for text in hints)
            notes.append(f"{directory}: ignored files that are no images that can be read, {listed}{hint}")
        notes += self._losses(directory)
        if self.hidden:
            names = Counter("._*" if Path(path).name.startswith("._") else Path(path).name for path in self.hidden)
            listed = some([name if count == 1 else f"{count} {name}" for name, count in names.most_common()])
            notes.append(f"{directory}: skipped hidden and system files and folders: {listed}")
        if self.beside:
            notes.append(f"{directory}: left out {some(self.beside)}")
        if self.unreadable:
            notes.append(f"{directory}: left out folders that cannot be read: {some(self.unreadable, _SHOWN_FOLDERS)}")
        if self.repeated:
            notes.append(
                f"{directory}: left out links to folders of the same class: {some(self.repeated, _SHOWN_FOLDERS)}"
            )
        return tuple(notes)

    def _losses(self, directory: Path) -> Iterator[str]:
        """Yield a warning for each class that loses more than a tenth of its files; labels beside images are none."""
        for name, suffixes in self.unread.items():
            lost = Counter({suffix: count for suffix, count in suffixes.items() if suffix not in _SIDECARS})
            whole = lost.total() + self.read[name]
            if lost.total() > _LARGEST_LOSS * whole:
                remedy = next((_DECODERS[suffix] for suffix in lost if suffix in _DECODERS), "save them as PNG or JPEG")
                yield (
                    f"{WARNING}{directory}: {name!r} loses {lost.total()} of {whole} files ({_listed(lost)}), which "
                    f"cannot be read; {remedy}"
                )


def _listed(suffixes: Counter[str]) -> str:
    return some([f"{count} {suffix}" for suffix, count in sorted(suffixes.items())])


def is_metadata(name: str) -> bool:
    """Whether a file or folder belongs to the system or is hidden."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES


def content_of(folder: Path, left_out: LeftOut) -> tuple[list[str], list[str]]:
    """Return the names of a folder's subfolders and files in natural order, metadata left out; raises OSError."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_metadata(entry.name):
                left_out.hidden.add(entry.path)
            else:
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders, key=natural_key), sorted(files, key=natural_key)


def is_image(path: Path) -> bool:
    """Whether a file is taken for an image: by its name, or else by its first bytes."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix not in _SIDECARS and is_image_file(path))


def images_below(class_dir: Path, left_out: LeftOut, name: str) -> list[str]:
    """Return the image files below a folder, folder by folder in natural order; opens only what has another suffix.

    Args:
        name: of the class, as in `LeftOut`.
    """
    images = []
    for parent, files in _folders(class_dir, left_out, visited=set()):
        for file in files:
            path = parent / file
            if is_image(path):
                images.append(str(path))
            else:
                left_out.unread.setdefault(name, Counter())[path.suffix.lower() or "no suffix"] += 1
    left_out.read[name] += len(images)
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
        folders, files = content_of(folder, left_out)
    except OSError as error:
        left_out.unreadable.append(f"{folder} ({error.strerror})")
        return
    yield folder, files
    for name in folders:
        yield from _folders(folder / name, left_out, visited)
