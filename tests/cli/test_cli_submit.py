"""`raytricks submit` and `raytricks jobs`: what is wrong is one line, most of it before any contact."""

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

from raytricks.cli.command_line import parse_command
from raytricks.cluster.jobs.command import JobCommand
from raytricks.errors import ConfigError
from raytricks.remote import submit

DEAD = "http://127.0.0.1:1"
FAR = "http://192.0.2.77:8265"
"""Of a network for documentation: a contact would take seconds and end with 4."""


@pytest.fixture(autouse=True)
def project(monkeypatch, tmp_path):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.yaml").write_text("data: {source: digits}\n")
    (tmp_path / "ignored" / "cat").mkdir(parents=True)
    (tmp_path / "ignored" / "cat" / "1.png").touch()
    (tmp_path / ".gitignore").write_text("ignored\n")
    (tmp_path / "large.bin").write_bytes(bytes(2 * 2**20))


CONFIG = ("train", "configs/digits.yaml")


@pytest.mark.parametrize(
    ("arguments", "code", "pattern"),
    [
        ([], 2, "a command to submit must be train or tune; try"),
        (["--", "trian", "x"], 2, "must be train or tune, got 'trian'; did you mean train?"),
        (["--", "doctor", "x"], 2, "must be train or tune, got 'doctor'"),
        (["--", "train"], 2, "nothing to train; name a config file"),
        (["--", "train", "configs/digit.yaml"], 2, "no such config file .*; did you mean .*digits.yaml?"),
        (["--", "train", "photos"], 2, "photos: no such config file or data directory"),
        (["--", *CONFIG, "recipe.epoch=3"], 2, "unknown key recipe.epoch; did you mean recipe.epochs?"),
        (["--", *CONFIG, "--foo"], 2, "No such option: --foo.*'raytricks train --help'"),
        (["--", *CONFIG, "--resume", "runs/x"], 2, "--resume runs/x takes its config from the run"),
        (["--", *CONFIG, "--resume"], 2, "--resume auto goes on with the run of the same name.*add name=NAME"),
        (["--name", "a b", "--", *CONFIG], 2, "--name must be letters"),
        (
            ["--address", DEAD, "--max-upload-mib", "1", "--", *CONFIG],
            2,
            "2.0 MiB to upload, the limit is 1 MiB.*large.bin 2.0",
        ),
        (["--max-upload-mib", "512", "--", *CONFIG], 2, "--max-upload-mib': .* 511"),
        (["--working-dir", "nowhere", "--", *CONFIG], 2, "nowhere/configs/digits.yaml"),
        (["--address", FAR, "--", *CONFIG], 2, "output_dir: runs is relative"),
        (["--address", FAR, "--", "train", "ignored", "output_dir=/x"], 3, "data.path: ignored is left out"),
        (["--address", DEAD, "--", "train", "ignored"], 3, "data.path: ignored is left out"),
        (["--address", "ray://head:10001", "--", *CONFIG], 2, "give --address http://head:8265"),
        (["--", *CONFIG], 4, "no cluster named"),
        (["--address", DEAD, "--", *CONFIG], 4, "cannot be reached .connection refused"),
        (["--address", DEAD, *CONFIG, "--strict"], 4, "cannot be reached"),
    ],
)
def test_submit_refuses_in_one_line(shell, arguments, code, pattern):
    ended, out, err = shell("submit", *arguments)
    assert (ended, out) == (code, ""), err
    [line] = err.splitlines()
    assert re.search(pattern.replace("?", r"\?"), line) and line.startswith("error: "), line


def test_every_problem_of_the_config_is_shown(shell):
    ended, _, err = shell("submit", "--address", DEAD, "--", *CONFIG, "recipe.epoch=3", "seed=-1")
    assert ended == 2 and len(err.splitlines()) == 2


@pytest.mark.parametrize("command", [["list"], ["status", "x"], ["logs", "x", "--follow"], ["stop", "x"]])
def test_jobs_without_a_cluster_is_one_line(shell, command):
    ended, out, err = shell("jobs", *command)
    assert (ended, out, len(err.splitlines())) == (4, "", 1) and "no cluster named" in err
    ended, out, err = shell("jobs", *command, "--address", DEAD)
    assert (ended, out, len(err.splitlines())) == (4, "", 1) and "connection refused" in err


def test_a_command_is_taken_apart_and_put_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["tune", "--budget", "2h", "configs/digits.yaml", "--json", "workers=0", "--retrain-seeds=0"]
    command = parse_command(words, Path())
    assert command == JobCommand(
        "tune",
        "configs/digits.yaml",
        ("workers=0",),
        None,
        ("--budget", "2h", "--retrain-seeds", "0", "--json"),
    )
    assert parse_command(command.words(), Path()) == command
    changed = command.with_settings([("workers", "2"), ("name", "a")])
    assert changed.words()[-3:] == ["configs/digits.yaml", "workers=2", "name=a"]
    assert parse_command(["train", "--resume", "runs/x", "workers=1"], Path()).words() == [
        *("train", "--resume", "runs/x", "workers=1")
    ]


def test_a_command_as_one_text_is_refused():
    with pytest.raises(ConfigError, match=r"must be a list of words"):
        submit("train configs/digits.yaml", address=DEAD)


def test_a_python_without_our_packages_says_so_in_one_line(repository):
    environment = {"PYTHONPATH": str(repository), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-S", "-P", "-m", "raytricks", *CONFIG]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (4, "")
    [line] = done.stderr.splitlines()
    assert "lacks ray, torch, " in line and "--pip" in line and "image" in line
    assert "plotly" not in line  # only a study's report needs it
    command[-2:] = ["tune", CONFIG[1]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4 and ", plotly" in done.stderr


def test_python_m_raytricks_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "raytricks", "version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout[0].isdigit()


def test_jobs_and_refusals_import_neither_torch_nor_ray(tmp_path):
    program = (
        "import sys\nfrom raytricks.cli.main import main\n"
        f"for arguments in (['jobs', 'list', '--address', '{DEAD}'], "
        f"['submit', '--address', '{DEAD}', '--', 'train', 'configs/digits.yaml']):\n"
        "    sys.argv = ['raytricks', *arguments]\n"
        "    try:\n        main()\n    except SystemExit as ended:\n        print(ended.code)\n"
        "print([name for name in ('torch', 'ray') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:3] == ["4", "4", "[]"], done.stderr
