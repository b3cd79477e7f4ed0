"""A table with a row an image, as CSV, TSV or Parquet: its path, its class and, if it says so, its split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import re

import numpy as np

from raytricks.config.schema import DataConfig
from raytricks.data.class_names import clean_name, in_class_order, look_alike_notes, some
from raytricks.data.sources.files import FileListing, ListedFiles, open_listing
from raytricks.data.sources.layout import SplitName, split_called
from raytricks.data.sources.lookup import ImageLookup
from raytricks.data.sources.rows import Columns, read_columns
from raytricks.data.splits import FoundSplits
from raytricks.errors import DataError
from raytricks.parts.hooks import Hooks
from raytricks.parts.sources import TABLE_SUFFIXES
from raytricks.suggest import did_you_mean

_PATH_NAMES = (
    "path", "filepath", "filename", "file", "imagepath", "imagefile", "imagefilename", "imagename", "image",
    "imgpath", "imgname", "img", "photo", "picture", "imageid", "imgid", "id", "name",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labelname", "class", "classname", "category", "target", "y", "species", "breed", "labels", "labelid",
    "classid", "categoryid",
)  # fmt: skip
_SPLIT_NAMES = ("split", "splits")
_PERHAPS_SPLITS = ("subset", "partition", "set", "phase", "usage")  # where every value is a split's name
_WEAK_LABEL_NAMES = ("y",)  # a coordinate, beside another label
_FLAGS: dict[str, tuple[SplitName, SplitName]] = {
    "isvalid": ("val", "train"), "isval": ("val", "train"), "istest": ("test", "train"), "istrain": ("train", "val"),
}  # fmt: skip
_TRUTHS = {"true": True, "1": True, "1.0": True, "yes": True, "t": True, "y": True}
_TRUTHS |= {"false": False, "0": False, "0.0": False, "no": False, "f": False, "n": False}
_SETTINGS = ("path_column", "label_column")


@dataclass(frozen=True)
class _Roles:
    """Which column says what; `flag` is a split column of yes and no."""

    path: str
    label: str
    split: str | None
    flag: str | None
    group: str | None

    @property
    def used(self) -> list[str]:
        return [name for name in (self.path, self.label, self.split, self.flag, self.group) if name is not None]


def list_table(
    path: Path, path_column: str | None = None, label_column: str | None = None, group: str | None = None
) -> FileListing:
    """Read a table; its paths are relative to the directory it is in. No image is opened.

    Classes are numbered by the training images, in `in_class_order`.

    Args:
        path_column, label_column: settings of `data`.
        group: data.group, used here where it is a column.

    Raises:
        DataError: unreadable, a column missing or there twice, an empty cell, an unknown split, an image that is not
            there or is listed with two labels, no training images, fewer than two classes, or a class that only
            another split has.
    """
    table = read_columns(path)
    roles = _roles(table, path_column, label_column, group)
    names, labels = (table.filled(column) for column in (roles.path, roles.label))
    clean = [clean_name(label) for label in labels]
    splits = _splits(table, roles, len(names))
    class_names = _class_names(path, clean, splits)
    number_of = {name: number for number, name in enumerate(class_names)}
    lookup = ImageLookup(path)
    paths = lookup.find(names)
    kept = _once(path, names, [os.path.normpath(found) for found in paths], clean, splits)
    groups = None if roles.group is None else table.filled(roles.group)
    listed = {}
    for split in ("train", "val", "test"):
        rows = [place for place, row in enumerate(kept) if splits[row] == split]
        if rows:
            listed[split] = ListedFiles(
                tuple(paths[kept[place]] for place in rows),
                np.array([number_of[clean[kept[place]]] for place in rows], np.int64),
                split,
                tuple(names[kept[place]] for place in rows),
                None if groups is None else tuple(groups[kept[place]] for place in rows),
            )
    notes = (_column_note(table, roles), *table.notes, *lookup.notes)
    notes += _cleaning_note(path, labels, clean) + look_alike_notes(path, class_names)
    if len(kept) < len(names):
        notes += (f"{path}: {len(names) - len(kept)} rows say again what an earlier one says, and are left out",)
    return FileListing(path.stem, class_names, listed, notes)


def open_splits(config: DataConfig) -> FoundSplits:
    """Read the table that data.path names, and the headers of its images."""
    path = Path(config.path or "").expanduser()
    return open_listing(list_table(path, config.path_column, config.label_column, config.group), config.group)


def _roles(table: Columns, path_column: str | None, label_column: str | None, group: str | None) -> _Roles:
    images = _column(table, _PATH_NAMES, path_column, "path")
    label = _column(table, _LABEL_NAMES, label_column, "label")
    _require_one_labelling(table, label, label_column)
    split = _usual(table, _SPLIT_NAMES) or _perhaps_split(table)
    flag = None if split is not None else _usual(table, tuple(_FLAGS))
    roles = _Roles(images, label, split, flag, group if group in table.names else None)
    for name in roles.used:
        if table.names.count(name) > 1:
            raise DataError(
                f"{table.path}: has {table.names.count(name)} columns {name!r}; rename or remove all but one"
            )
    return roles


def _column(table: Columns, usual: tuple[str, ...], named: str | None, role: str) -> str:
    setting = f"data.{role}_column"
    if named is not None:
        if named not in table.names:
            raise DataError(
                f"{table.path}: has no column {named!r}, which {setting} names, only {some(table.names, 20)}"
                f"{did_you_mean(named, table.names)}"
            )
        return named
    found = _usual(table, usual)
    if found is None:
        raise DataError(
            f"{table.path}: has no column {role} (or {', '.join(usual[1:5])}, ...), only {some(table.names, 20)}; the "
            f"first line must name the columns: wanted path,label or path,label,split, or set {setting}"
        )
    return found


def _usual(table: Columns, usual: tuple[str, ...]) -> str | None:
    by_bare: dict[str, str] = {}
    for name in table.names:
        by_bare.setdefault(_bare(name), name)
    return next((by_bare[name] for name in usual if name in by_bare), None)


def _perhaps_split(table: Columns) -> str | None:
    name = _usual(table, _PERHAPS_SPLITS)
    return name if name is not None and all(map(split_called, table.values(name))) else None


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _require_one_labelling(table: Columns, label: str, named: str | None) -> None:
    """Refuse to guess between two label columns that are not two names of the same classes."""
    strong = set(_LABEL_NAMES).difference(_WEAK_LABEL_NAMES)
    others = [name for name in table.names if name != label and _bare(name) in strong]
    for other in others if named is None else ():
        pairs = set(zip(table.values(label), table.values(other), strict=True))
        if not len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs}):
            raise DataError(
                f"{table.path}: the columns {label} and {other} may both hold the classes, and differ; set "
                f"data.label_column={label} or ={other}"
            )


def _splits(table: Columns, roles: _Roles, count: int) -> list[SplitName]:
    if roles.split is not None:
        return [_split_called(table.path, row, value) for row, value in enumerate(table.filled(roles.split))]
    if roles.flag is None:
        return ["train"] * count
    yes, no = _FLAGS[_bare(roles.flag)]
    return [yes if _truth(table.path, roles.flag, row, v) else no for row, v in enumerate(table.filled(roles.flag))]


def _split_called(path: Path, row: int, value: str) -> SplitName:
    split = split_called(value)
    if split is None:
        raise DataError(f"{path}: row {row + 1} has the split {value!r}; wanted: train, val or test")
    return split


def _truth(path: Path, column: str, row: int, value: str) -> bool:
    if value.casefold() not in _TRUTHS:
        raise DataError(f"{path}: row {row + 1} has {value!r} in {column}; wanted: True or False")
    return _TRUTHS[value.casefold()]


def _once(
    path: Path, names: Sequence[str], files: Sequence[str], labels: Sequence[str], splits: Sequence[str]
) -> list[int]:
    """Return the rows without those that repeat an earlier one; raises DataError where two contradict each other."""
    first: dict[str, int] = {}
    kept = []
    for row, (name, file) in enumerate(zip(names, files, strict=True)):
        earlier = first.setdefault(file, row)
        if earlier == row:
            kept.append(row)
        for what, values in (("label", labels), ("split", splits)):
            if values[row] != values[earlier]:
                raise DataError(
                    f"{path}: {name} has the {what} {values[earlier]!r} in row {earlier + 1} and {values[row]!r} in "
                    f"row {row + 1}; keep the right one"
                )
    return kept


def _class_names(path: Path, labels: Sequence[str], splits: Sequence[str]) -> tuple[str, ...]:
    known = {label for label, split in zip(labels, splits, strict=True) if split == "train"}
    if not known:
        raise DataError(f"{path}: has no row of the split train; training needs some")
    names = in_class_order(known)
    foreign = in_class_order(set(labels) - known)
    if foreign:
        raise DataError(
            f"{path}: class {foreign[0]!r} is not among the training images ({some(names)}); add some or remove its "
            f"rows{did_you_mean(foreign[0], names, 1)}"
        )
    if len(known) < 2:
        raise DataError(f"{path}: only one class, {known.pop()!r}; at least 2 are needed")
    return names


def _column_note(table: Columns, roles: _Roles) -> str:
    said = {"images": roles.path, "classes": roles.label, "splits": roles.split or roles.flag, "groups": roles.group}
    listed = ", ".join(f"{what} from column {name}" for what, name in said.items() if name is not None)
    unused = [name or "(one without a name)" for name in table.names if name not in roles.used]
    return f"{table.path}: {listed}" + (f"; not used: {some(unused, 10)}" if unused else "")


def _cleaning_note(path: Path, labels: Sequence[str], clean: Sequence[str]) -> tuple[str, ...]:
    changed = Counter((label, name) for label, name in zip(labels, clean, strict=True) if label != name)
    if not changed:
        return ()
    listed = some([f"{label!r} is {name!r}" for label, name in changed], 3)
    return (f"{path}: blanks or the Unicode form of {changed.total()} labels were cleaned: {listed}",)


def _holds(path: str) -> bool:
    return "://" not in path and not Path(path).expanduser().is_dir() and Path(path).suffix.lower() in TABLE_SUFFIXES


HOOKS = Hooks(build=open_splits, holds=_holds)
