"""The address of the dashboard that jobs are submitted to, and whether it is on this machine."""

from dataclasses import dataclass
from ipaddress import ip_address
import os
import re
import socket
from urllib.parse import urlsplit

from raytricks.errors import ClusterError, ConfigError

OPTION = "--address"
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_PORT = 8265
_HOST = re.compile(r"^(?:\w+://)?(?:[^@/]*@)?(\[[^\]]+\]|[^:/?#]+)")
_NO_HOSTS = ("auto", "local")


@dataclass(frozen=True)
class JobAddress:
    """A dashboard's URL, without a slash at its end, and who named it."""

    url: str
    source: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def option(self) -> str:
        """What a next command needs to find the same cluster: nothing, if the environment names it."""
        return "" if self.source in _VARIABLES else f" {OPTION} {self.url}"


def find_address(given: str | None) -> JobAddress:
    """Return the address given, or that of RAY_API_SERVER_ADDRESS or RAY_ADDRESS. Contacts nobody.

    Raises:
        ConfigError: what was named is no http:// or https:// URL of a dashboard.
        ClusterError: nothing was named.
    """
    named = [(OPTION, given), *((name, os.environ.get(name)) for name in _VARIABLES)]
    for source, text in named:
        if text and text.strip():
            return JobAddress(_dashboard_url(text.strip(), source), source)
    raise ClusterError(
        f"no cluster named; give {OPTION} http://HEAD:{_PORT} or set {_VARIABLES[0]}, or start one on this machine "
        f"with `ray start --head` and give {OPTION} http://127.0.0.1:{_PORT}"
    )


def is_literal(host: str) -> bool:
    """Report an address, or `localhost`: a host that needs no look-up."""
    if host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_here(host: str) -> bool:
    """Report whether a host name or address means this machine. An unknown host does not."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_own(str(address)) for address in found)


def _is_own(address: str) -> bool:
    """A socket can be bound to an address of this machine only."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as own:
            own.bind((address, 0))
    except OSError:
        return False
    return True


def _dashboard_url(text: str, source: str) -> str:
    """Return a URL without its end, as pasted from a browser, or say what to write instead."""
    scheme, separator, _ = text.partition("://")
    found = _HOST.match(text)
    host = "HEAD" if found is None or text in _NO_HOSTS else found[1]
    if not separator or scheme.lower() not in ("http", "https"):
        raise ConfigError(
            f"{source}: jobs are submitted to the dashboard, an http:// or https:// URL, got {_shown(text)!r}; "
            f"give {OPTION} http://{host}:{_PORT}"
        )
    try:
        parts = urlsplit(text)
        port = parts.port  # raises ValueError
    except ValueError:
        raise ConfigError(f"{source}: {_shown(text)!r} is no URL; give {OPTION} http://{host}:{_PORT}") from None
    if not parts.hostname:
        raise ConfigError(f"{source}: {_shown(text)!r} names no host; give {OPTION} http://HEAD:{_PORT}")
    if "@" in parts.netloc:
        raise ConfigError(f"{source}: leave user and password out of the URL; Ray's token is read from RAY_AUTH_TOKEN")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{scheme.lower()}://{name}{f':{port}' if port is not None else ''}{parts.path.rstrip('/')}"


def _shown(text: str) -> str:
    """Without what may be a password."""
    return re.sub(r"//[^@/]*@", "//...@", text)
