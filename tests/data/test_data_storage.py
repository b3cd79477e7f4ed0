"""Files below a root: many more than a process may have open."""

from pathlib import Path
import subprocess
import sys

import fsspec
import pytest

from raytricks.data.storage import remote_files
from raytricks.errors import DataError

READ_ALL = """
import resource, sys

resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
from raytricks.data.storage import storage_at

storage = storage_at(sys.argv[1])
for name in [f"{number}.bin" for number in range(400)] * 2:
    assert bytes(storage.read(name, 2)) == name.encode(), name
"""


@pytest.mark.parametrize("is_url", [False, True])
def test_storage_reads_more_files_than_a_process_may_have_open(tmp_path: Path, is_url):
    for number in range(400):
        (tmp_path / f"{number}.bin").write_bytes(b"--" + f"{number}.bin".encode())
    root = tmp_path.as_uri() if is_url else str(tmp_path)
    done = subprocess.run([sys.executable, "-c", READ_ALL, root], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_remote_files_lists_a_directory_a_pattern_and_one_file(tmp_path, scheme):
    root = f"file://{tmp_path}" if scheme == "file" else "memory://listed"
    filesystem, folder = fsspec.core.url_to_fs(root)
    filesystem.makedirs(f"{folder}/b", exist_ok=True)
    for name in ("b/2.jpg", "1.jpg", "3.png"):
        filesystem.pipe(f"{folder}/{name}", b"x")
    assert remote_files(root) == (root, ["1.jpg", "3.png", "b/2.jpg"])
    assert remote_files(f"{root}/*.jpg")[1] == ["1.jpg"]
    assert remote_files(f"{root}/3.png") == (root, ["3.png"])
    with pytest.raises(DataError, match="no such file, folder or pattern of files"):
        remote_files(f"{root}/nothing")
