"""Files below a root: many more than a process may have open."""

from pathlib import Path
import subprocess
import sys

import pytest

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
