"""Passwords and keys in URLs: refused where they would be written to a file, hidden where they would be printed."""

import re

_USER = re.compile(r"(?<=://)[^@/?#]*(?=@)")
_QUERY = re.compile(
    r"(?<=[?&])(user|password|passwd|token|secret|sig|signature|\w*key|\w*token|x-amz-\w+)=[^&#\s]*", re.IGNORECASE
)


def has_credentials(url: str) -> bool:
    """Return whether a URL logs in: user:password@, or a query with a key. A path never does."""
    return "://" in url and redacted(url) != url


def redacted(text: str) -> str:
    """Return a text without what logs in, in any URL in it."""
    return _QUERY.sub(r"\1=...", _USER.sub("...", text))
