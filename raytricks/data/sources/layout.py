"""Which folder is which split and which is a class, judged by the whole layout; doubt is an error naming data.layout.

The names of splits are those in use, in any case. A name alone decides nothing: a class may be called train. Folders
are splits when they hold class folders, best those that other splits hold too; they are classes when they hold images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Literal

from raytricks.data.class_names import clean_name, some
from raytricks.data.sources.walk import LeftOut, content_of, is_image
from raytricks.errors import DataError

SplitName = Literal["train", "val", "test"]
LayoutSetting = Literal["auto", "splits", "classes"]
WANTED = "wanted: DIR/CLASS/*.jpg, or DIR/train/CLASS/*.jpg with DIR/val/CLASS/*.jpg"
_WORDS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
_ENDINGS = ("", "set", "data", "dataset", "images", "imgs", "split")
_EXACT: dict[str, SplitName] = {
    word + ending: split for split, words in _WORDS.items() for word in words for ending in _ENDINGS
}
_DEEPEST = 8  # folders that lie alone in their parent; a link may make them endless
_PROBED = 50  # files of a folder looked at for an image


@dataclass(frozen=True)
class Layout:
    """The class folders of each split.

    Attributes:
        class_dirs: split ("train" first) -> clean class name -> its folders.
        origins: what each split is called by the data.
    """

    class_dirs: dict[SplitName, dict[str, list[Path]]]
    origins: dict[SplitName, str]


def split_called(name: str) -> SplitName | None:
    """Return the split that a name means by itself, such as "Training Set" or "valid"; None for any other name."""
    return _EXACT.get(re.sub(r"[\W_]+", "", name).casefold())


def find_layout(directory: Path, setting: LayoutSetting, left_out: LeftOut) -> Layout:
    """Judge a data folder; lists folders, opens nothing but a few files without a usual suffix.

    Args:
        setting: data.layout.

    Raises:
        DataError: no class folders, or the folders can be read in two ways.
    """
    return _Judge(left_out).layout(directory, setting)


class _Judge:
    def __init__(self, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._seen: dict[Path, tuple[list[str], list[str]]] = {}

    def layout(self, directory: Path, setting: LayoutSetting) -> Layout:
        outer, directory = directory, self._inmost(directory, is_split=False)
        if directory != outer:
            self._left_out.inner.append(f"{directory.relative_to(outer)}/")
        folders = self._folders(directory)
        if not folders:
            raise self._without_classes(directory)
        splits = {} if setting == "classes" else self._splits(directory, folders, is_sure=setting == "splits")
        if splits:
            self._note_beside(directory, [name for name in folders if name not in splits.values()])
            return self._of_splits(directory, splits)
        by_class = None if setting == "classes" else self._of_splits_in_classes(directory, folders)
        if by_class is not None:
            return by_class
        if setting == "auto":
            self._require_classes(directory, folders)
        self._note_images(directory)
        return Layout({"train": _by_name(directory / name for name in folders)}, {"train": "the images"})

    def _splits(self, directory: Path, folders: list[str], *, is_sure: bool) -> dict[SplitName, str]:
        """Return the folder of each split; {} where the folders are classes."""
        called: dict[str, SplitName] = {
            name: split for name in folders if (split := split_called(name) or self._loosely(directory, name))
        }
        if is_sure:
            return self._required(directory, self._one_each(directory, called))
        deep: dict[str, SplitName] = {n: split for n, split in called.items() if self._holds_classes(directory / n)}
        deep |= {name: split for name, split in called.items() if self._shares(directory, name, [*deep])}
        flat = {n: split for n, split in called.items() if n not in deep and self._holds_images(directory / n)}
        others = [name for name in folders if name not in called and self._holds_images_below(directory / name)]
        if not deep:
            if len(set(flat.values())) > 1:
                raise _doubt(
                    directory, [*flat], "images without class folders, so splits whose labels are elsewhere, or classes"
                )
            return {}
        if any(split == "train" for split in flat.values()):
            raise _doubt(directory, [*called], "named like splits, and only some hold class folders")
        splits = self._one_each(directory, deep)
        if "train" not in splits and (len(splits) > 1 or others):
            raise _doubt(directory, [*deep], "named like splits, and no folder is named like the training images")
        if others and not self._shares(directory, splits["train"], splits.values()):
            raise _doubt(directory, [*deep], f"splits, or classes beside {some(others, 3)}")
        return self._required(directory, splits)

    def _loosely(self, directory: Path, name: str) -> SplitName | None:
        """Return the split that a word at either end names, as in seg_train, if another folder goes with it."""
        split = _word_at_an_end(name)
        if split is None or not self._holds_classes(directory / name):
            return None
        others = [
            other
            for other in self._folders(directory)
            if (split_called(other) or _word_at_an_end(other)) not in (None, split)
        ]
        return split if self._shares(directory, name, others) else None

    def _one_each(self, directory: Path, called: dict[str, SplitName]) -> dict[SplitName, str]:
        splits: dict[SplitName, str] = {}
        for split in _WORDS:
            names = [name for name, its in called.items() if its == split]
            exact = [name for name in names if split_called(name)] or names
            if len(exact) > 1:
                raise DataError(
                    f"{directory}: {' and '.join(f'{name}/' for name in exact)} are both named like the split {split}; "
                    "remove or rename one, or set data.layout=classes if they are classes"
                )
            if exact:
                splits[split] = exact[0]
        return splits

    def _required(self, directory: Path, splits: dict[SplitName, str]) -> dict[SplitName, str]:
        if "train" not in splits:
            named = f"{[*splits.values()][0]}/ but no train/" if splits else "no train/"
            raise DataError(
                f"{directory}: holds {named}; name the folder of the training images train, or set data.layout=classes "
                f"if the folders are classes; {WANTED}"
            )
        return splits

    def _shares(self, directory: Path, name: str, others: Iterable[str]) -> bool:
        """Whether a folder holds a class folder that another one holds too."""
        classes = self._class_names(directory / name)
        return any(classes & self._class_names(directory / other) for other in others if other != name)

    def _of_splits(self, directory: Path, splits: dict[SplitName, str]) -> Layout:
        class_dirs: dict[SplitName, dict[str, list[Path]]] = {}
        for split, name in splits.items():
            of_train = set(class_dirs.get("train", ()))
            place = self._inmost(directory / name, is_split=True, stop_at=of_train)
            if not self._folders(place) and split != "train":  # test images without labels, as contests give them
                self._left_out.beside.append(f"{name}/, which holds no class folders")
                continue
            if not self._folders(place):
                raise self._without_classes(place)
            if place != directory / name:
                self._left_out.inner.append(f"{place.relative_to(directory)}/")
            self._note_images(place)
            class_dirs[split] = _by_name(place / folder for folder in self._folders(place))
        return Layout(class_dirs, {split: splits[split] for split in class_dirs})

    def _require_classes(self, directory: Path, folders: list[str]) -> None:
        """Refuse folders that all hold the same folders, such as fold1/cat, fold1/dog, fold2/cat, fold2/dog."""
        names = self._class_names(directory / folders[0])
        if len(folders) < 2 or len(names) < 2:
            return
        if all(self._holds_classes(directory / f) and self._class_names(directory / f) == names for f in folders):
            raise _doubt(directory, folders, f"all hold the same folders ({some(sorted(names), 3)}): classes, or parts")

    def _of_splits_in_classes(self, directory: Path, folders: list[str]) -> Layout | None:
        """Return the layout of DIR/CLASS/train/*.jpg; None where not all class folders are so."""
        class_dirs: dict[SplitName, dict[str, list[Path]]] = {"train": {}, "val": {}, "test": {}}
        for name in folders:
            called: dict[str, SplitName | None] = {f: split_called(f) for f in self._folders(directory / name)}
            if "train" not in called.values() or None in called.values() or self._holds_images(directory / name):
                return None
            for folder, split in called.items():
                assert split is not None
                class_dirs[split].setdefault(clean_name(name), []).append(directory / name / folder)
        if len(folders) < 2:
            return None
        found: dict[SplitName, dict[str, list[Path]]] = {s: classes for s, classes in class_dirs.items() if classes}
        return Layout(found, {split: f"CLASS/{[*classes.values()][0][0].name}" for split, classes in found.items()})

    def _inmost(self, directory: Path, *, is_split: bool, stop_at: Iterable[str] = ()) -> Path:
        """Return the folder that lies alone in its parent, as in unpacked archives, as long as it holds folders."""
        for _ in range(_DEEPEST):
            folders = self._folders(directory)
            if len(folders) != 1 or self._holds_images(directory) or clean_name(folders[0]) in stop_at:
                break
            inner = directory / folders[0]
            if not self._folders(inner) or (not is_split and split_called(folders[0]) and not self._holds_train(inner)):
                break
            directory = inner
        return directory

    def _holds_train(self, directory: Path) -> bool:
        return any(split_called(n) == "train" and self._holds_classes(directory / n) for n in self._folders(directory))

    def _note_beside(self, directory: Path, names: list[str]) -> None:
        flat = " (without class folders)"
        self._left_out.beside += [f"{name}/{flat if split_called(name) else ''}" for name in names]
        self._note_images(directory)

    def _note_images(self, directory: Path) -> None:
        count = sum(is_image(directory / name) for name in self._files(directory))
        if count:
            plural = "s" if count > 1 else ""
            self._left_out.beside.append(f"{count} image{plural} in {directory.name}/ itself, beside the class folders")

    def _content(self, folder: Path) -> tuple[list[str], list[str]]:
        if folder not in self._seen:
            try:
                self._seen[folder] = content_of(folder, self._left_out)
            except OSError as error:
                raise DataError(f"{folder}: cannot be read ({error.strerror}); check your access to it") from None
        return self._seen[folder]

    def _folders(self, folder: Path) -> list[str]:
        return self._content(folder)[0]

    def _files(self, folder: Path) -> list[str]:
        return self._content(folder)[1]

    def _class_names(self, folder: Path) -> set[str]:
        return {clean_name(name) for name in self._folders(self._inmost(folder, is_split=True))}

    def _holds_images(self, folder: Path) -> bool:
        return any(is_image(folder / name) for name in self._files(folder)[:_PROBED])

    def _holds_classes(self, folder: Path) -> bool:
        return bool(self._folders(folder)) and not self._holds_images(folder)

    def _holds_images_below(self, folder: Path, depth: int = _DEEPEST) -> bool:
        if self._holds_images(folder):
            return True
        return depth > 0 and any(self._holds_images_below(folder / name, depth - 1) for name in self._folders(folder))

    def _without_classes(self, directory: Path) -> DataError:
        files = self._files(directory)
        images = sum(is_image(directory / name) for name in files)
        held = f"{len(files)} files ({images} images)" if files else "nothing"
        table = next((name for name in files if Path(name).suffix.lower() in (".csv", ".tsv")), None)
        hint = "" if table is None else f"; to take the classes from a table, name it: {directory / table}"
        return DataError(f"{directory}: holds {held} but no class folders{hint}; {WANTED}")


def _word_at_an_end(name: str) -> SplitName | None:
    words = [word for word in re.split(r"[\W_\d]+", name.casefold()) if word]
    found: set[SplitName] = {_EXACT[word] for word in words[:1] + words[-1:] if word in _EXACT}
    return found.pop() if len(found) == 1 else None


def _by_name(folders: Iterable[Path]) -> dict[str, list[Path]]:
    by_name: dict[str, list[Path]] = {}
    for folder in folders:
        by_name.setdefault(clean_name(folder.name) or folder.name, []).append(folder)
    return by_name


def _doubt(directory: Path, names: list[str], why: str) -> DataError:
    listed = " and ".join(f"{name}/" for name in names[:3])
    return DataError(
        f"{directory}: {listed}: {why}; set data.layout=splits or data.layout=classes to say which, or rename them"
    )
