"""Headers of many files: read once, kept, and read again where a file has changed."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from raytricks.data import header_scan
from raytricks.data.header_scan import read_headers
from raytricks.errors import DataError


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the files that were opened; everything is kept, however few."""
    monkeypatch.setattr(header_scan, "KEPT_FROM", 1)
    monkeypatch.setattr(header_scan, "_UNSETTLED_NS", 0)
    seen, read = [], header_scan.read_header

    def watched(path: Path):
        seen.append(path.name)
        return read(path)

    monkeypatch.setattr(header_scan, "read_header", watched)
    return seen


def draw(folder: Path, count: int) -> list[str]:
    paths = [folder / f"{number:03}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("L" if number % 2 else "RGB", (3 + number, 5)).save(path)
    return list(map(str, paths))


def widths(paths: list[str], kept: Path) -> list[int]:
    return read_headers(paths, kept).widths.tolist()


def test_headers_are_kept_for_the_next_start(tmp_path, opened):
    paths = draw(tmp_path, 9)
    first = read_headers(paths, tmp_path / "kept")
    assert first.widths.tolist() == list(range(3, 12)) and set(first.heights) == {5} and not first.is_grayscale
    assert len(opened) == 9
    second = read_headers(paths, tmp_path / "kept")
    assert len(opened) == 9 and second.paths == first.paths
    assert np.array_equal(second.widths, first.widths) and np.array_equal(second.heights, first.heights)
    assert read_headers(paths[1::2], tmp_path / "kept").is_grayscale


@pytest.mark.parametrize("keeps_time", [False, True])
def test_headers_of_a_changed_file_are_read_again(tmp_path, opened, keeps_time):
    paths = draw(tmp_path, 6)
    widths(paths, tmp_path / "kept")
    before = Path(paths[2]).stat()
    Image.new("L", (40, 40)).save(tmp_path / "new.png")
    (tmp_path / "new.png").replace(paths[2])
    if keeps_time:
        os.utime(paths[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert widths(paths, tmp_path / "kept") == [3, 4, 40, 6, 7, 8]
    assert opened[6:] == ["002.png"]


def test_headers_of_new_missing_and_reordered_files_are_those_of_their_files(tmp_path, opened):
    paths = draw(tmp_path, 6)
    widths(paths, tmp_path / "kept")
    Image.new("L", (50, 5)).save(tmp_path / "0015.png")
    mixed = [paths[0], paths[5], str(tmp_path / "0015.png"), *paths[3:5]]
    assert widths(mixed, tmp_path / "kept") == [3, 8, 50, 6, 7]
    assert opened[6:] == ["0015.png"]
    assert widths(mixed, tmp_path / "kept") == [3, 8, 50, 6, 7] and len(opened) == 7


def test_headers_of_a_file_that_was_just_written_are_not_trusted(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(header_scan, "_UNSETTLED_NS", 3_600_000_000_000)
    paths = draw(tmp_path, 4)
    assert widths(paths, tmp_path / "kept") == widths(paths, tmp_path / "kept") == [3, 4, 5, 6]
    assert len(opened) == 8


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"not an archive"])
def test_kept_headers_that_are_damaged_are_read_again(tmp_path, opened, content):
    paths = draw(tmp_path, 4)
    widths(paths, tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(content)
    assert widths(paths, tmp_path / "kept") == [3, 4, 5, 6]
    assert widths(paths, tmp_path / "kept") == [3, 4, 5, 6] and len(opened) == 8


def test_headers_are_read_where_nothing_can_be_kept(tmp_path, opened):
    paths = draw(tmp_path, 4)
    (tmp_path / "file").touch()
    assert widths(paths, tmp_path / "file" / "kept") == [3, 4, 5, 6]


def test_headers_name_the_first_file_that_is_no_image_and_count_the_others(tmp_path, opened):
    paths = draw(tmp_path, 600)
    for number in (590, 311, 400):
        Path(paths[number]).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"311\.png: .* \(and 2 more unreadable of 600\)$"):
        widths(paths, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
