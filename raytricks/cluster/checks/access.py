"""Who may use Ray here: the token and its file, and whether a dashboard lets strangers in."""

from http.client import HTTPException
import ipaddress
import os
from pathlib import Path
import re
import socket
import stat
from urllib import error as http_error
from urllib import request as http
from urllib.parse import urlsplit

from raytricks.cluster.authentication import HOW_TO_NAME_A_TOKEN, MODE, TOKEN, token_source
from raytricks.cluster.checks.result import CheckResult, fail, ok, warn
from raytricks.errors import ClusterError

_TIMEOUT_S = 3.0
_LOOPBACK = re.compile(r"127\.|::1$|localhost$")
_HOW_TO_CLOSE = "start the head with RAY_AUTH_MODE=token, or with --dashboard-host=127.0.0.1 and use an SSH tunnel"


def check_token() -> CheckResult:
    """Say where Ray's token is from and who can read it; the token itself is shown nowhere."""
    subject, mode = "authentication", os.environ.get(MODE)
    try:
        source = token_source()
    except ClusterError as error:
        return fail(subject, str(error).split(";")[0], HOW_TO_NAME_A_TOKEN)
    if mode is not None and mode.lower() not in ("token", "disabled", "k8s"):
        return fail(subject, f"{MODE}={mode} is no mode of Ray", f"export {MODE}=token")
    if mode is not None and mode.lower() == "disabled":
        beside = f", although there is a token ({source})" if source else ": a Ray started here lets everyone in"
        return warn(subject, f"{MODE}=disabled{beside}", f"unset {MODE}")
    if source is None:
        if mode is not None:
            return warn(subject, f"{MODE}={mode}, and there is no token yet", HOW_TO_NAME_A_TOKEN)
        return ok(subject, f"{MODE} is not set, no token yet; a local Ray makes one")
    if source != TOKEN and (trouble := _readable_by_others(Path(source))):
        return fail(subject, trouble, f"chmod 600 {source}")
    return ok(subject, f"token from {source}, {MODE} is {mode or 'not set: raytricks sets token'}")


def _readable_by_others(path: Path) -> str | None:
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"other users can read the token in {path} (mode {mode:04o})" if mode & 0o077 else None


def judge_cluster_authentication(modes: set[str], address: str) -> CheckResult:
    """Say whether a cluster asks for a token.

    Args:
        modes: RAY_AUTH_MODE of its nodes.
    """
    subject = "authentication (cluster)"
    if modes <= {"token", "k8s"}:
        return ok(subject, f"{address} asks for a token")
    return warn(
        subject,
        f"{address} asks for no token: whoever reaches its ports can run code on it",
        f"start all its nodes with {MODE}=token, and keep its ports in a private network",
    )


def check_dashboard(dashboard: str | None, node_hosts: set[str]) -> CheckResult:
    """Ask a dashboard for its version without a token, at an address that other machines can reach.

    Nothing but this machine and the cluster's own nodes is contacted.

    Args:
        dashboard: host:port, as the cluster tells it; None or empty: there is none.
        node_hosts: the addresses of the cluster's nodes.
    """
    subject = "dashboard"
    parts = urlsplit(dashboard if dashboard and "://" in dashboard else f"//{dashboard or ''}")
    if not parts.hostname or not parts.port:
        return ok(subject, "the cluster has none")
    own = own_addresses()
    is_here = bool(_LOOPBACK.match(parts.hostname)) or parts.hostname in own
    if not is_here and parts.hostname not in node_hosts:
        return warn(subject, f"{dashboard} is at no node of the cluster, not looked at", _HOW_TO_CLOSE)
    closed = []
    for host in sorted(own) if is_here else [parts.hostname]:
        place = f"http://[{host}]:{parts.port}" if ":" in host else f"http://{host}:{parts.port}"
        status = _status_without_token(place)
        if status == 200:
            found = f"{place} answers without a token: anyone who reaches it can run code on the cluster"
            return fail(subject, found, _HOW_TO_CLOSE)
        if status in (401, 403):
            closed.append(place)
    if closed:
        return ok(subject, f"{closed[0]} asks for a token")
    return ok(subject, "reached from its own machine only" if is_here else f"not reached from here ({dashboard})")


class _NoRedirects(http.HTTPRedirectHandler):
    """A redirect may lead to a machine that is not of the cluster."""

    def redirect_request(self, *_: object) -> None:
        return None


def _status_without_token(place: str) -> int | None:
    """Return the HTTP status of a dashboard's version, None when nothing answers or something else does."""
    opener = http.build_opener(http.ProxyHandler({}), _NoRedirects)
    try:
        with opener.open(f"{place}/api/version", timeout=_TIMEOUT_S) as response:
            return response.status if b"ray_version" in response.read(4096) else None
    except http_error.HTTPError as refused:
        return refused.code
    except (OSError, ValueError, HTTPException):
        return None


def own_addresses() -> set[str]:
    """Return this machine's addresses that other machines may reach."""
    found = set()
    try:  # all interfaces, on Linux
        table = Path("/proc/net/fib_trie").read_text()
        found |= set(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", table))
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            found.add(str(ipaddress.IPv6Address(int(line.split()[0], 16))))
    except OSError:
        pass
    try:
        infos = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
        found |= {str(info[4][0]) for info in infos}
    except OSError:
        pass
    return {a for a in found if not _LOOPBACK.match(a) and not a.startswith("fe80")}
