"""A config error must not wait for torch or Ray."""

from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[2]


def test_config_imports_neither_torch_nor_ray():
    code = (
        "import sys, raytricks.config as c; c.load_config(None, ['seed=3']);"
        "print([m for m in ('torch', 'torchvision', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
