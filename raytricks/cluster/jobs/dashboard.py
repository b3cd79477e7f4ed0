"""Requests to Ray's dashboard with the standard library: fast, with limits, and every failure is one line."""

from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
import json
import socket
import ssl
from threading import Thread
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from raytricks.cluster.authentication import HOW_TO_NAME_A_TOKEN, MODE, auth_header, token_source
from raytricks.cluster.jobs.address import OPTION, JobAddress, is_here
from raytricks.errors import ClusterError

CONNECT_S = 5.0
"""Limit of each step of the first request."""
_FIRST_ANSWER_S = 8.0
"""Limit of all its steps, such as the look-up of the host's name, which has no limit of its own."""
_ANSWER_S = 30.0
_NODES_S, _POLL_S = 10.0, 0.5
_VERSION = "/api/version"
_LARGEST_ANSWER = 64 * 2**20


class NoAnswer(ClusterError):
    """The dashboard could not be reached; a second try may succeed."""


class Refusal(Exception):
    """An answer that is an error of HTTP.

    Args:
        status: 404, 500, ...
        text: what came with it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Dashboard:
    """A dashboard that has answered.

    Attributes:
        address: after its redirects.
        ray_version: of the cluster.
    """

    address: JobAddress
    ray_version: str

    @classmethod
    def connect(cls, address: JobAddress) -> "Dashboard":
        """Ask for the version; takes less than ten seconds.

        Raises:
            ClusterError: nobody answers, it is no Ray dashboard, or it wants another token.
        """
        headers = auth_header()
        found: list[Any] = []

        def ask() -> None:
            try:
                found.append(_request(address.url + _VERSION, headers, timeout_s=CONNECT_S))
            except Exception as error:  # raised by the thread that waits
                found.append(error)

        thread = Thread(target=ask, daemon=True)
        thread.start()
        thread.join(_FIRST_ANSWER_S)
        if not found:
            raise _no_answer(address, f"no answer in {_FIRST_ANSWER_S:g} s")
        if isinstance(found[0], Exception):
            raise _explained(found[0], address)
        url, content = found[0]
        try:
            version = json.loads(content)["ray_version"]
        except (ValueError, KeyError, TypeError):
            raise _not_ray(address) from None
        return cls(JobAddress(url.removesuffix(_VERSION), address.source), str(version))

    def get(self, path: str) -> Any:
        """Return the JSON at a path.

        Raises:
            Refusal: the answer is an error, such as 404.
            NoAnswer: there is none.
        """
        return self._send(path, "GET")

    def post(self, path: str) -> Any:
        """Like `get`, with POST and no content."""
        return self._send(path, "POST")

    def nodes(self) -> list[dict[str, Any]]:
        """Return what the dashboard knows of the living nodes; empty where it does not say.

        Waits some seconds for a head that has just started to tell of itself.
        """
        started_s = time.monotonic()
        while True:
            try:
                found = self.get("/nodes?view=summary")["data"]["summary"]
                alive = [node for node in found if node["raylet"].get("state") == "ALIVE"]
                has_head = any(node["raylet"].get("isHeadNode") and node.get("cmdline") for node in alive)
            except (Refusal, ClusterError, KeyError, TypeError, AttributeError):
                return []
            if has_head or time.monotonic() - started_s > _NODES_S:
                return alive
            time.sleep(_POLL_S)

    def _send(self, path: str, method: str) -> Any:
        url = self.address.url + path
        try:
            return json.loads(_request(url, auth_header(), timeout_s=_ANSWER_S, method=method)[1])
        except HTTPError as error:
            if error.code in (401, 403):
                raise _explained(error, self.address) from None
            raise Refusal(error.code, _body(error)) from None
        except ValueError:
            raise _not_ray(self.address) from None
        except Exception as error:
            raise _explained(error, self.address) from None


def is_on_this_machine(dashboard: Dashboard, nodes: list[dict[str, Any]]) -> bool:
    """Report whether all nodes of a cluster are here. A tunnel to a cluster elsewhere looks local, its nodes do not."""
    addresses = [str(node.get("ip", "")) for node in nodes]
    return is_here(dashboard.address.host) and all(is_here(address) for address in addresses)


def python_of_ray(nodes: list[dict[str, Any]]) -> str:
    """Return the Python that runs Ray on the head node, where a job's command starts; `python` if unknown.

    The first `python` of that node's PATH is often another one, without Ray.
    """
    option = "--python_worker_command="
    for node in nodes:
        words = [word for word in node.get("cmdline") or () if str(word).startswith(option)]
        if node["raylet"].get("isHeadNode") and words:
            python = words[0].removeprefix(option).partition(" ")[0]
            return python if python.startswith("/") else "python"
    return "python"


class _Elsewhere(Exception):
    """A redirect to a place that the token must not go to."""


class _SameHostOnly(HTTPRedirectHandler):
    """Follows redirects; with a token to no other host, nor from https to http.

    Without the token, what answers there could not be used: it would have to come with each later request.
    """

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        is_elsewhere = old.hostname != new.hostname or (old.scheme, new.scheme) == ("https", "http")
        if is_elsewhere and req.has_header("Authorization"):
            fp.close()
            raise _Elsewhere(f"{new.scheme}://{new.netloc.rpartition('@')[2]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(url: str, headers: dict[str, str], *, timeout_s: float, method: str = "GET") -> tuple[str, bytes]:
    """Return the final URL and the content."""
    request = Request(url, headers=headers, method=method, data=b"" if method == "POST" else None)
    with build_opener(_SameHostOnly).open(request, timeout=timeout_s) as answer:
        return answer.geturl(), answer.read(_LARGEST_ANSWER)


def _explained(error: Exception, address: JobAddress) -> ClusterError:
    """Return the line for what went wrong with a request."""
    if isinstance(error, HTTPError):
        error.close()
        if error.code in (401, 403):
            return ClusterError(f"{address.url}: {_token_line(error.code)}")
        if error.code == 404:
            return _not_ray(address)
        return NoAnswer(f"{address.url} answers HTTP {error.code}, not as a Ray dashboard; check {address.source}")
    if isinstance(error, _Elsewhere):
        return ClusterError(
            f"{address.url} redirects to {error}, which is not given the token; if that is your cluster, give "
            f"{OPTION} {error}"
        )
    reason: object = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLError):
        return ClusterError(
            f"{address.url}: no secure connection ({reason.reason or reason}); check https against http, or name the "
            "certificate's authority in SSL_CERT_FILE and REQUESTS_CA_BUNDLE"
        )
    if isinstance(reason, HTTPException):
        return _not_ray(address)
    return _no_answer(address, _spoken(reason))


def _spoken(reason: object) -> str:
    kinds: list[tuple[type, Callable[[Any], str]]] = [
        (TimeoutError, lambda _: f"no answer in {CONNECT_S:g} s"),
        (ConnectionRefusedError, lambda _: "connection refused, nothing listens there"),
        (socket.gaierror, lambda _: "unknown host"),
        (OSError, lambda error: error.strerror or str(error)),
    ]
    for kind, words in kinds:
        if isinstance(reason, kind):
            return words(reason)
    return str(reason).splitlines()[0] if str(reason) else type(reason).__name__


def _no_answer(address: JobAddress, reason: str) -> NoAnswer:
    return NoAnswer(
        f"{address.url} cannot be reached ({reason}); check {address.source} and that the cluster runs with its "
        "dashboard (`ray start --head`)"
    )


def _not_ray(address: JobAddress) -> ClusterError:
    return ClusterError(f"{address.url} is not a Ray dashboard; check {address.source}, it is usually http://HEAD:8265")


def _token_line(status: int) -> str:
    """Say whether a token is missing, unused or another cluster's."""
    source = token_source()
    if not auth_header():
        start = "the cluster wants a token"
        if source is not None:
            return f"{start}, and {MODE} keeps the one of {source} from being sent; `export {MODE}=token`"
        return f"{start}; `export {MODE}=token` and {HOW_TO_NAME_A_TOKEN}"
    return f"the token of {source} is not this cluster's (HTTP {status}); {HOW_TO_NAME_A_TOKEN}"


def _body(error: HTTPError) -> str:
    with error:
        try:
            return error.read(2**20).decode(errors="replace").strip()
        except (OSError, HTTPException):
            return ""
