"""Ray's token: where it is found, when it is used, who can read it."""

import os
from pathlib import Path
import stat
import subprocess
import sys

import pytest

from raytricks.cluster.authentication import auth_header, prepare_authentication, protect_token_file, token_source
from raytricks.errors import ClusterError

SECRET = "0123456789abcdef-of-a-test"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> Path:
    """A home without a token, and none in the environment."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def token_file(home: Path, token: str = SECRET) -> Path:
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text(token)
    path.chmod(0o644)
    return path


def test_without_a_token_the_mode_stays_unset():
    prepare_authentication()
    assert (token_source(), auth_header(), os.environ.get("RAY_AUTH_MODE")) == (None, {}, None)


def test_sources_have_rays_order(home, monkeypatch, tmp_path):
    path = token_file(home, " in-home\n")
    assert (token_source(), auth_header()) == (str(path), {"Authorization": "Bearer in-home"})
    other = tmp_path / "team"
    other.write_text("of-team")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    assert (token_source(), auth_header()) == (str(other), {"Authorization": "Bearer of-team"})
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    assert (token_source(), auth_header()) == ("RAY_AUTH_TOKEN", {"Authorization": f"Bearer {SECRET}"})


def test_a_mode_that_is_set_stays_and_sends_no_token(home, monkeypatch):
    token_file(home)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    prepare_authentication()
    assert (auth_header(), os.environ["RAY_AUTH_MODE"]) == ({}, "disabled")


def test_a_path_without_a_token_is_one_line(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(ClusterError, match=r"^RAY_AUTH_TOKEN_PATH: no token in '/nowhere/token'.*RAY_AUTH_TOKEN, a"):
        prepare_authentication()


def test_the_token_file_is_for_its_owner_only(home):
    protect_token_file()  # no file: nothing happens
    path = token_file(home)
    protect_token_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == SECRET


@pytest.mark.parametrize("first", ["", "import ray; "], ids=["before", "after"])
def test_ray_uses_the_token_whether_imported_before_or_after(home, first):
    token_file(home)
    program = (
        f"{first}from raytricks.cluster.authentication import prepare_authentication as p; p(); "
        "from ray._raylet import get_authentication_mode as m, AuthenticationMode as M; print(m() == M.TOKEN)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("True", 0), done.stderr


@pytest.mark.ray
@pytest.mark.parametrize("has_token", [False, True], ids=["no token yet", "token"])
def test_a_local_session_starts_and_leaves_a_private_token(home, has_token):
    path = home / ".ray" / "auth_token"
    if has_token:
        token_file(home)
    program = (
        "from raytricks.cluster.session import ray_session\n"
        "with ray_session() as resources:\n"
        "    import ray\n"
        "    print(ray.get(ray.remote(lambda: 42).remote()))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, env=environment)
    assert (done.stdout.strip(), done.returncode) == ("42", 0), done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if has_token:
        assert path.read_text() == SECRET
