"""What trackers have in common: how a run is called there, and the ids that RUN/trackers.json keeps.

A run that is resumed goes on as the same one. Steps that it repeats are sent again, and the later values are the run's.
"""

from collections.abc import Mapping
import json
from pathlib import Path
from threading import Lock
from typing import Protocol

from raytricks.files import write_atomically

IDS_FILE = "trackers.json"
_TRIAL_FOLDERS = {"trials": "", "retrain": "retrain-"}
_IDS_LOCK = Lock()  # an id may come from a tracker's thread


class Tracker(Protocol):
    """Somewhere that a run's numbers go besides its files. Any method may raise anything.

    Attributes:
        name: its key in the section `logging`.
    """

    name: str

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one record."""

    def close(self, ok: bool) -> None:
        """Send what is left; `ok` says that the run is finished."""


def tracked_name(run_dir: Path) -> tuple[str, str | None]:
    """Return a run's name in a tracker and, for the run of a study, the study's."""
    folder = run_dir.absolute().parent
    if run_dir.name.isdecimal() and folder.name in _TRIAL_FOLDERS:
        study = folder.parent.name
        return f"{study}-{_TRIAL_FOLDERS[folder.name]}{run_dir.name}", study
    return run_dir.absolute().name, None


def known_id(run_dir: Path, name: str, place: str) -> str | None:
    """Return the id of the run in a tracker; None where it has none, as at a place that a resume has changed to."""
    entry = _read_ids(run_dir).get(name, {})
    return entry["id"] if entry.get("place") == place else None


def keep_id(run_dir: Path, name: str, place: str, run_id: str) -> None:
    """Remember the id of the run in a tracker."""
    with _IDS_LOCK:
        content = _read_ids(run_dir) | {name: {"place": place, "id": run_id}}
        write_atomically(run_dir / IDS_FILE, json.dumps(content, indent=1).encode())


def _read_ids(run_dir: Path) -> dict[str, dict[str, str]]:
    path = run_dir / IDS_FILE
    return json.loads(path.read_text()) if path.is_file() else {}
