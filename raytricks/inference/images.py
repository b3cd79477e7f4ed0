"""The image files of a folder, a glob or a list, in a fixed order."""

import os
from pathlib import Path

from raytricks.data.image_formats import IMAGE_SUFFIXES
from raytricks.errors import DataError


def files_in(folder: str | os.PathLike) -> list[str]:
    """Return the image files below a folder, by their suffix, sorted; hidden ones are left out.

    Raises:
        DataError: there is none.
    """
    root = Path(folder).expanduser()
    found = []
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [os.path.join(directory, name) for name in sorted(files) if _is_image(name)]  # noqa: PTH118 (speed)
    if not found:
        raise DataError(f"{root}: no image files there; they end with {', '.join(IMAGE_SUFFIXES)}")
    return found


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
