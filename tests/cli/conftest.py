"""The command line, run in this process."""

from pathlib import Path
import sys

import pytest

from raytricks.cli.main import main


class Shell:
    """Runs the command line in this process, in a directory of its own."""

    def __init__(self, monkeypatch, capsys, directory: Path) -> None:
        monkeypatch.chdir(directory)
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        self._monkeypatch.setattr(sys, "argv", ["raytricks", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)
