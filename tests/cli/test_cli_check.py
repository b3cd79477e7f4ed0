"""`raytricks check` on this machine: planted faults are found and named, and nothing is left behind."""

from collections.abc import Iterator
from contextlib import contextmanager
import http.server
import io
import json
import os
from pathlib import Path
import resource
import socket
import subprocess
import sys
import threading

import pytest
import torch

from raytricks.cluster.checks.machine import judge_disk, judge_open_files, judge_shared_memory
from raytricks.cluster.checks.probe import read_facts
from raytricks.cluster.checks.result import fail, ok, warn
from raytricks.report.check_lines import print_results

SECRET = "0123456789abcdef-of-a-test"
GIB = 2**30
_FROM_OUTSIDE = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR")


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path_factory) -> Path:
    """A home without a token, and no cluster."""
    for name in _FROM_OUTSIDE:
        monkeypatch.setenv(name, "")  # so that what a command sets is undone
        monkeypatch.delenv(name)
    path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(path))
    return path


@pytest.fixture
def check(shell):
    """Run `raytricks check --json`; returns exit code and results by subject, and sees that nothing was made."""

    def run(*arguments: str) -> tuple[int, dict[str, dict]]:
        before = sorted(Path().rglob("*"))
        code, out, err = shell("check", "--json", *arguments)
        assert err == "" and sorted(Path().rglob("*")) == before
        document = json.loads(out)
        assert document["ok"] == (code == 0)
        return code, {found["check"]: found for found in document["checks"]}

    return run


@contextmanager
def small_disk(directory: Path, mib: int, *options: str) -> Iterator[Path]:
    """Mount a disk of some MiB, where that is allowed."""
    directory.mkdir()
    what = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={mib}m", *options]), "none", str(directory)]
    if subprocess.run(what, capture_output=True).returncode:
        pytest.skip("takes the right to mount")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_check_of_a_sound_machine_prints_plain_lines_and_exits_with_0(shell):
    code, out, err = shell("check", "data.source=digits")
    lines = out.splitlines()
    assert (code, err) == (0, "") and "\x1b" not in out
    assert [line[:5] for line in lines[:-1] if line[:5] not in ("ok   ", "warn ")] == []
    assert "Python 3." in lines[0] and "torch" in lines[0]
    assert lines[-1].startswith("13 checks: ") and lines[-1].endswith(" 0 failed")
    assert list(Path().iterdir()) == []  # runs/ was not there


def test_check_takes_a_config_file_or_a_directory(check, repository):
    code, found = check(str(repository / "configs/digits.yaml"), "workers=1")
    assert code == 0 and found["data"]["found"] == "data.source is digits"
    assert found["workers"]["found"].startswith("workers=1 ")
    Path("photos").mkdir()
    assert check("photos")[1]["data"]["found"] == f"{Path('photos').resolve()} can be read"


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["nowhere.yaml"], 2, ["nowhere.yaml"]),
        (["output_dirr=x"], 2, ["unknown key output_dirr", "did you mean output_dir"]),
        (["--distribute"], 2, ["--distribute", "raytricks check --help"]),
    ],
)
def test_check_bad_input_is_one_clear_line(shell, arguments, code, parts):
    got, out, err = shell("check", *arguments)
    assert (got, out) == (code, "") and err.startswith("error: ") and err.count("\n") == 1
    for part in parts:
        assert part in err


def test_check_finds_an_output_dir_that_cannot_be_made(check):
    Path("file").write_text("")
    code, found = check("output_dir=file/runs")
    assert code == 4 and found["storage"]["status"] == "FAIL"
    assert "file/runs cannot be written" in found["storage"]["found"] and "output_dir" in found["storage"]["remedy"]


def test_check_finds_a_read_only_output_dir(check, tmp_path):
    with small_disk(tmp_path / "disk", 64, "ro") as disk:
        code, found = check(f"output_dir={disk}")
    assert code == 4 and "Read-only file system" in found["storage"]["found"]


def test_check_finds_full_disks(check, tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", 64) as disk:
        monkeypatch.setenv("RAY_TMPDIR", str(disk))
        code, found = check(f"output_dir={disk / 'runs'}")
    assert code == 4
    for name, remedy in (("disk for runs", "set output_dir"), ("disk for Ray", "set RAY_TMPDIR")):
        assert found[name]["status"] == "FAIL" and "0.1 GiB free" in found[name]["found"]
        assert remedy in found[name]["remedy"]


def test_check_finds_data_that_is_not_there(check):
    code, found = check("data.path=nowhere")
    assert code == 4 and found["data"]["status"] == "FAIL" and "nowhere" in found["data"]["found"]
    code, found = check("data.source=shards", "data.path=s3://bucket/data")
    assert code == 0 and "URL" in found["data"]["found"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_check_finds_that_there_is_no_gpu(check):
    code, found = check("hardware.device=cuda", "workers=1")
    assert code == 4 and found["devices"]["status"] == found["workers"]["status"] == "FAIL"
    assert "no usable GPU" in found["devices"]["found"] and "hardware.device=cpu" in found["devices"]["remedy"]


def test_check_finds_that_there_are_too_few_cpus(check):
    wanted = (os.cpu_count() or 1) + 1
    code, found = check(f"workers={wanted}")
    assert code == 4 and f"need {wanted} CPUs" in found["workers"]["found"]
    assert "set workers=" in found["workers"]["remedy"]


def token_file(home: Path, mode: int) -> Path:
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text(SECRET)
    path.chmod(mode)
    return path


def test_check_finds_a_token_that_others_can_read(check, home):
    path = token_file(home, 0o644)
    code, found = check()
    assert code == 4 and "mode 0644" in found["authentication"]["found"]
    assert found["authentication"]["remedy"] == f"chmod 600 {path}" and SECRET not in str(found)
    path.chmod(0o600)
    code, found = check()
    assert code == 0 and found["authentication"]["found"].startswith(f"token from {path}")


@pytest.mark.parametrize(
    ("name", "value", "status", "part"),
    [
        ("RAY_AUTH_TOKEN", SECRET, "ok", "token from RAY_AUTH_TOKEN"),
        ("RAY_AUTH_TOKEN_PATH", "/nowhere/token", "FAIL", "/nowhere/token"),
        ("RAY_AUTH_MODE", "token", "warn", "no token yet"),
        ("RAY_AUTH_MODE", "disabled", "warn", "lets everyone in"),
        ("RAY_AUTH_MODE", "tokens", "FAIL", "RAY_AUTH_MODE=tokens is no mode of Ray"),
    ],
)
def test_check_says_where_the_token_is_from(check, monkeypatch, name, value, status, part):
    monkeypatch.setenv(name, value)
    found = check()[1]["authentication"]
    assert found["status"] == status and part in found["found"] and SECRET not in str(found)


def test_check_of_a_dead_address_is_one_line(check, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    code, found = check("--distributed")
    assert code == 4 and "nothing answers" in found["ray"]["found"] and "distributed" not in found
    assert "RAY_ADDRESS" in found["ray"]["remedy"]


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("http://127.0.0.1:8265", "the dashboard's address"),
        ("ray://127.0.0.1:10001", "Ray's client"),
        ("head", "not HOST:PORT"),
        ("127.0.0.1:99999", "nothing answers"),
    ],
)
def test_check_of_an_address_of_another_kind_is_one_line(check, monkeypatch, address, part):
    monkeypatch.setenv("RAY_ADDRESS", address)
    code, found = check()
    assert code == 4 and part in found["ray"]["found"]


def test_check_of_another_service_is_one_line(check, monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.server_port}")
        code, found = check()
    finally:
        server.shutdown()
        server.server_close()
    assert code == 4 and "is no head" in found["ray"]["found"]


@pytest.mark.parametrize(
    ("package", "version", "status", "part"),
    [
        ("torch", "2.9.1", "FAIL", "CVE-2026-24747"),
        ("ray", "2.55.0", "warn", "preemption"),
        ("pyarrow", "9.0.0", "FAIL", "pyarrow 9.0.0, wanted >=17"),
    ],
)
def test_check_finds_an_old_package(check, monkeypatch, tmp_path_factory, package, version, status, part):
    place = tmp_path_factory.mktemp("packages")
    (place / f"{package}-{version}.dist-info").mkdir()
    (place / f"{package}-{version}.dist-info/METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    )
    monkeypatch.syspath_prepend(str(place))  # metadata of the first directory counts
    code, found = check()
    assert code == (4 if status == "FAIL" else 0)
    assert found["versions"]["status"] == status and part in found["versions"]["found"]


def test_disk_thresholds_are_5_and_1_gib_and_rays_95_percent():
    def disk(free: float, total: float = 50) -> dict:
        return {"path": "/x", "free": int(free * GIB), "total": int(total * GIB)}

    assert [judge_disk("output_dir", disk(free)).status for free in (5, 4.9, 1, 0.9)] == ["ok", "warn", "warn", "FAIL"]
    result = judge_disk("Ray's temporary directory", disk(9, total=200))
    assert result.status == "warn" and "95%" in result.found
    assert judge_disk("output_dir", disk(9, total=200)).status == "ok"


def test_shared_memory_below_what_ray_wants_warns():
    facts = read_facts({}) | {"memory_bytes": 10 * GIB}
    sizes = (3, 2, 0.0625)
    results = [judge_shared_memory(facts | {"shared_memory": {"total": s * GIB, "free": s * GIB}}) for s in sizes]
    assert [r.status for r in results] == ["ok", "warn", "warn"]
    assert "--shm-size=3g" in str(results[2].remedy)
    assert judge_shared_memory(facts | {"shared_memory": None}).status == "ok"


def test_a_low_limit_of_open_files_warns_on_a_cluster():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        facts = read_facts({})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert judge_open_files(facts, is_cluster=False).status == "ok"
    result = judge_open_files(facts, is_cluster=True)
    assert result.status == "warn" and "1,024" in result.found and "ulimit -n" in str(result.remedy)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_are_coloured_in_a_terminal_unless_no_color_is_set(monkeypatch):
    results = [ok("a", "fine"), warn("b", "[low]", "free some"), fail("c", "gone", "restore it")]
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = Terminal()
    assert not print_results(results, coloured)
    assert "\x1b[32mok" in coloured.getvalue() and "\x1b[1;31mFAIL" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain, piped = Terminal(), io.StringIO()
    assert print_results(results[:2], piped) and not print_results(results, plain)
    assert "\x1b[3" not in plain.getvalue() and "\x1b" not in piped.getvalue()
    assert piped.getvalue().splitlines()[1].split(maxsplit=2) == ["warn", "b", "[low]; free some"]


def test_check_starts_no_ray_and_does_not_import_it(tmp_path):
    code = """
import sys
from raytricks.cli.main import main
sys.argv = ["raytricks", "check", "workers=1"]
try:
    main()
except SystemExit as ended:
    assert ended.code == 0, ended.code
assert "ray" not in sys.modules
"""
    environment = {name: value for name, value in os.environ.items() if name not in _FROM_OUTSIDE}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
