"""The first mutations of `benchmarks/fuzz_folders.py`: damage ends in one line or a sound run, and moves no label."""

from pathlib import Path
import subprocess
import sys

FUZZ = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_folders.py"


def test_random_damage_gives_no_traceback_no_hang_and_no_wrong_label():
    command = [sys.executable, str(FUZZ), "--mutations", "60", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout
    summary = done.stdout.splitlines()[-1]
    assert summary.startswith("60 mutations, seed 7: ") and "; 0 wrong; " in summary
    assert int(summary.rpartition("; ")[2].split()[0]) > 500  # labels were looked at
