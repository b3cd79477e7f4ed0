"""Addresses of clusters that are wrong, dead, somebody else's or moved: one line each, at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
import socket
from threading import Thread
import time

import pytest

from raytricks.cluster.jobs.address import JobAddress, find_address, is_here, is_literal
from raytricks.cluster.jobs.dashboard import Dashboard, NoAnswer, is_on_this_machine, python_of_ray
from raytricks.errors import ClusterError, ConfigError

SECRET = "0123456789abcdef-of-a-test"
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path):
    for name in (*_VARIABLES, "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@contextmanager
def http_server(status: int, content: bytes = b"", **headers: str) -> Iterator[tuple[str, list[str | None]]]:
    """Answer every GET alike; yields the URL and the Authorization headers that came."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *arguments) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def refusal(url: str) -> str:
    """Return the line for an address, which must come in time."""
    started_s = time.monotonic()
    with pytest.raises(ClusterError) as raised:
        Dashboard.connect(JobAddress(url, "--address"))
    assert time.monotonic() - started_s < 10
    assert "\n" not in str(raised.value) and str(raised.value).startswith(url)
    return str(raised.value)


def test_the_option_goes_before_the_environment(monkeypatch):
    with pytest.raises(ClusterError, match=r"^no cluster named.*ray start --head.*--address http://127.0.0.1:8265$"):
        find_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "http://ray:1")
    assert find_address(None) == JobAddress("http://ray:1", "RAY_ADDRESS")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://api:2/")
    assert find_address("").url == "https://api:2"
    assert find_address(None).option == ""
    found = find_address("http://Head:8265/#/jobs?x")
    assert (found.url, found.host, found.option) == ("http://head:8265", "head", " --address http://head:8265")
    assert find_address("http://[::1]:8265").url == "http://[::1]:8265"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("ray://head:10001", "http://head:8265"),
        ("head:6379", "http://head:8265"),
        ("10.0.0.1:6379", "http://10.0.0.1:8265"),
        ("auto", "http://HEAD:8265"),
        ("local", "http://HEAD:8265"),
        ("http://", "http://HEAD:8265"),
        ("http://head:99999", "http://head:8265"),
        ("ftp://user:hunter2@head", "http://head:8265"),
    ],
)
def test_an_address_of_another_kind_is_told_apart(text, remedy):
    with pytest.raises(ConfigError) as raised:
        find_address(text)
    [line] = raised.value.problems
    assert line.startswith("--address: ") and line.endswith(f"give --address {remedy}") and "hunter2" not in line


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="leave user and password out") as raised:
        find_address("http://user:hunter2@head:8265")
    assert "hunter2" not in str(raised.value)


def test_a_dead_port_and_an_unknown_host_are_told_apart():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert "connection refused, nothing listens there" in refusal(f"http://127.0.0.1:{port}")
    assert "(unknown host); check --address" in refusal("http://no-such-host.invalid:8265")


def test_a_server_that_says_nothing_is_given_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "no answer in 5 s" in refusal(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(("status", "content"), [(200, b"<html>"), (200, b"[]"), (200, b"{}"), (404, b"no")])
def test_another_http_server_is_no_dashboard(status, content):
    with http_server(status, content) as (url, _):
        assert "is not a Ray dashboard" in refusal(url)


def test_a_server_in_trouble_and_one_without_tls_are_named():
    with http_server(503) as (url, _):
        assert "answers HTTP 503" in refusal(url)
        assert "no secure connection" in refusal(url.replace("http:", "https:"))


def test_a_token_that_is_missing_unsent_or_wrong_is_told_apart(monkeypatch):
    with http_server(401) as (url, seen):
        assert "the cluster wants a token; `export RAY_AUTH_MODE=token` and put" in refusal(url)
        monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert "RAY_AUTH_MODE keeps the one of RAY_AUTH_TOKEN from being sent" in refusal(url)
        assert seen == [None, None]
    monkeypatch.delenv("RAY_AUTH_MODE")
    with http_server(403) as (url, seen):
        line = refusal(url)
        assert "the token of RAY_AUTH_TOKEN is not this cluster's (HTTP 403)" in line and SECRET not in line
        assert seen == [f"Bearer {SECRET}"]


def test_a_token_that_cannot_be_sent_is_not_shown(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", f"{SECRET}\nX: y")
    with pytest.raises(ClusterError, match="^RAY_AUTH_TOKEN: the token holds a line break") as raised:
        Dashboard.connect(JobAddress("http://127.0.0.1:1", "--address"))
    assert SECRET not in str(raised.value)


def test_redirects_are_followed_and_keep_the_token_on_its_host(monkeypatch):
    with http_server(200, b'{"ray_version": "2.60.0"}') as (url, seen):
        elsewhere = url.replace("127.0.0.1", "localhost")
        with http_server(302, Location=f"{elsewhere}/api/version") as (first, _):
            found = Dashboard.connect(JobAddress(first, "--address"))  # without a token there is nothing to keep
            assert (found.address.url, seen.pop()) == (elsewhere, None)
            found.get("/api/jobs/")
            monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
            seen.clear()
            assert f"redirects to {elsewhere}, which is not given the token" in refusal(first)
            assert f"give --address {elsewhere}" in refusal(first) and SECRET not in refusal(first)
        with http_server(302, Location=f"{url}/api/version") as (first, _):
            found = Dashboard.connect(JobAddress(first, "--address"))
        assert (found.address.url, found.ray_version, seen) == (url, "2.60.0", [f"Bearer {SECRET}"])


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_later_request_that_is_sent_to_another_host_does_not_take_the_token_there(monkeypatch, method):
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    with http_server(200, b"[]") as (url, seen):
        elsewhere = url.replace("127.0.0.1", "localhost")
        with http_server(302, Location=f"{elsewhere}/api/jobs/") as (first, asked):
            dashboard = Dashboard(JobAddress(first, "--address"), "2.60.0")
            with pytest.raises(ClusterError, match="which is not given the token"):
                getattr(dashboard, method)("/api/jobs/")
    assert asked == [f"Bearer {SECRET}"] and seen == []


def test_hosts_of_this_machine_are_known():
    assert is_here("127.0.0.1") and is_here("localhost") and is_here(socket.gethostname())
    assert not is_here("192.0.2.77") and not is_here("no-such-host.invalid")
    assert is_literal("localhost") and is_literal("10.0.0.1") and is_literal("::1") and not is_literal("head")


def test_a_tunnel_looks_local_and_its_nodes_do_not():
    dashboard = Dashboard(JobAddress("http://127.0.0.1:8265", "--address"), "2.60.0")
    here, there = {"ip": "127.0.0.1"}, {"ip": "192.0.2.77"}
    assert is_on_this_machine(dashboard, [here])
    assert not is_on_this_machine(dashboard, [here, there])


def test_the_python_of_ray_is_that_of_the_head():
    command = "--python_worker_command=/opt/ray/bin/python /opt/default_worker.py"
    nodes = [
        {"raylet": {"isHeadNode": False}, "cmdline": [command.replace("opt", "worker")]},
        {"raylet": {"isHeadNode": True}, "cmdline": ["raylet", command]},
    ]
    assert python_of_ray(nodes) == "/opt/ray/bin/python"
    assert (
        python_of_ray([]) == python_of_ray(nodes[:1]) == python_of_ray([{"raylet": {"isHeadNode": True}}]) == "python"
    )


def test_a_dashboard_that_goes_away_may_be_asked_again():
    with http_server(200, b'{"ray_version": "2.60.0"}') as (url, _):
        dashboard = Dashboard.connect(JobAddress(url, "--address"))
    with pytest.raises(NoAnswer, match="cannot be reached"):
        dashboard.get("/api/jobs/")
    assert dashboard.nodes() == []
