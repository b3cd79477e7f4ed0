"""Ray's token: where it is, when Ray has to use it, and that nobody else can read it.

Ray 2.60 reads a token from RAY_AUTH_TOKEN, the file of RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, but
only with RAY_AUTH_MODE=token. A local `ray.init()` makes the file, and from then on `ray start --head`
uses it, while a client that did not set the mode is turned away. A token is never printed or saved here.
"""

import os
from pathlib import Path
import stat
import sys

from raytricks.errors import ClusterError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
HOW_TO_NAME_A_TOKEN = f"put the cluster's token into {TOKEN}, a file named by {TOKEN_PATH}, or ~/.ray/auth_token"


def prepare_authentication() -> None:
    """Have Ray use the token that there is; call it before Ray is imported.

    Sets RAY_AUTH_MODE=token when a token exists and the mode is not set. A mode that is set stays.

    Raises:
        ClusterError: RAY_AUTH_TOKEN_PATH names no file with a token.
    """
    if not _is_wanted() or token_source() is None or MODE in os.environ:
        return
    os.environ[MODE] = "token"
    if "ray" in sys.modules:
        _tell_imported_ray()


def protect_token_file() -> None:
    """Let only its owner read ~/.ray/auth_token, if it is ours: Ray 2.60 writes it with mode 0644."""
    try:
        path = _default_path()
        found = path.stat()
        if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o600)
    except OSError:  # no file, or a file system without modes
        return


def token_source() -> str | None:
    """Return where the token comes from: RAY_AUTH_TOKEN, a file's path, or None without a token.

    Raises:
        ClusterError: RAY_AUTH_TOKEN_PATH names no file with a token.
    """
    found = _find_token()
    return None if found is None else found[0]


def auth_header() -> dict[str, str]:
    """Return the HTTP header that Ray's dashboard wants; empty without a token or with another mode.

    Raises:
        ClusterError: RAY_AUTH_TOKEN_PATH names no file with a token, or it is none that can be sent.
    """
    if not _is_wanted():
        return {}
    found = _find_token()
    if found is None:
        return {}
    source, token = found
    if not (token.isascii() and token.isprintable()):
        raise ClusterError(f"{source}: the token holds a line break or another character that no token has")
    return {"Authorization": f"Bearer {token}"}


def _is_wanted() -> bool:
    """Any other mode than token, set or misspelt, turns Ray's tokens off."""
    return os.environ.get(MODE, "token").lower() == "token"


def _find_token() -> tuple[str, str] | None:
    """Return source and token, in Ray's order."""
    if given := os.environ.get(TOKEN):
        return (TOKEN, given.strip()) if given.strip() else None
    if named := os.environ.get(TOKEN_PATH):
        token = _read(Path(named))
        if not token:
            raise ClusterError(f"{TOKEN_PATH}: no token in {named!r}, or it cannot be read; {HOW_TO_NAME_A_TOKEN}")
        return named, token
    path = _default_path()
    token = _read(path)
    return (str(path), token) if token else None


def _default_path() -> Path:
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # a user without a home
        return Path("/nonexistent")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _tell_imported_ray() -> None:
    """Ray reads its mode once, on import; it refreshes it like this itself."""
    import ray

    if not ray.is_initialized():
        ray._raylet.Config.initialize("")  # pyright: ignore[reportAttributeAccessIssue]
