"""The public names of the package."""

import inspect
import subprocess
import sys

import pytest

import raytricks


@pytest.mark.parametrize("name", raytricks.__all__)
def test_a_public_name_means_the_same_each_time_and_is_no_module(name):
    first = getattr(raytricks, name)
    assert getattr(raytricks, name) is first
    assert not inspect.ismodule(first)


def test_importing_the_package_and_its_reporter_needs_neither_torch_nor_ray():
    code = "import raytricks, sys; raytricks.Reporter; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
