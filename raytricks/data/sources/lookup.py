"""Find the image that a table's cell means: as it is written, or else the one file that it can only mean."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import unicodedata

from raytricks.data.class_names import some
from raytricks.data.image_formats import IMAGE_SUFFIXES
from raytricks.data.sources.walk import is_metadata
from raytricks.errors import DataError


@dataclass(frozen=True)
class _Folder:
    """What a folder holds, by exact name, by name in any case and Unicode form, and images by name without suffix."""

    names: frozenset[str]
    by_name: dict[str, list[str]]
    by_stem: dict[str, list[str]]


class ImageLookup:
    """Looks beside a table and in the folders beside it; every folder is listed once.

    Attributes:
        notes: what was done beside taking paths as they are.
    """

    def __init__(self, table: Path) -> None:
        self._table = table
        self._listed: dict[Path, _Folder] = {}
        self._beside = sorted(
            entry for entry in table.parent.iterdir() if not is_metadata(entry.name) and entry.is_dir()
        )
        self._ways: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._ways:
            return ()
        return (f"{self._table}: paths completed: {some([f'{n:,} {way}' for way, n in self._ways.most_common()])}",)

    def find(self, cells: Sequence[str]) -> list[str]:
        """Return the path of each row's image.

        Raises:
            DataError: there is none, or there are several.
        """
        found = [self._path(cell.strip()) for cell in cells]
        rows = range(1, len(cells) + 1)
        wrong = [
            (row, cell, path) for row, cell, path in zip(rows, cells, found, strict=True) if isinstance(path, list)
        ]
        if wrong:
            row, cell, candidates = wrong[0]
            what = f"may be {some(candidates, 3)}" if candidates else "is no file beside the table or in a folder there"
            more = f" (and {len(wrong) - 1} more of {len(found)} rows)" if len(wrong) > 1 else ""
            raise DataError(
                f"{self._table}: row {row}: {cell!r} {what}{more}; write the path of the image, or remove it"
            )
        return [path for path in found if isinstance(path, str)]

    def _path(self, cell: str) -> str | list[str]:
        """Return the one path that a cell can mean, else all of them."""
        parent = self._table.parent
        found = self._in(parent, cell)
        if not found and "\\" in cell:
            cell = cell.replace("\\", "/")
            found = self._counted(self._in(parent, cell), "with / for \\")
        if not found:
            by_folder = {folder: self._in(folder, cell) for folder in self._beside}
            found = [path for paths in by_folder.values() for path in paths]
            if len(found) == 1:
                self._ways[f"in {next(f.name for f, paths in by_folder.items() if paths)}/"] += 1
        return found[0] if len(found) == 1 else found

    def _in(self, root: Path, cell: str) -> list[str]:
        place = root / cell
        folder = self._folder(place.parent)
        if place.name in folder.names:
            return [str(place)]
        key = _key(place.name)
        for way, names in (("in another case", folder.by_name.get(key)), ("with a suffix", folder.by_stem.get(key))):
            if names:
                return self._counted([str(place.parent / name) for name in names], way)
        return []

    def _counted(self, found: list[str], way: str) -> list[str]:
        self._ways[way] += len(found) == 1
        return found

    def _folder(self, place: Path) -> _Folder:
        if place not in self._listed:
            try:
                names = [entry.name for entry in place.iterdir() if not is_metadata(entry.name)]
            except OSError:
                names = []
            by_name: dict[str, list[str]] = {}
            by_stem: dict[str, list[str]] = {}
            for name in sorted(names):
                by_name.setdefault(_key(name), []).append(name)
                if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                    by_stem.setdefault(_key(Path(name).stem), []).append(name)
            self._listed[place] = _Folder(frozenset(names), by_name, by_stem)
        return self._listed[place]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
