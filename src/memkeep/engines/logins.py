"""Passwords and API keys of servers: taken out of URLs, kept for this process alone, written nowhere.

A server's URL is kept, shown and compared without its secrets; whoever connects asks here for them.
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from memkeep.errors import StoreError

_SECRET_OPTIONS = frozenset({"password", "sslpassword", "api_key", "apikey", "api-key"})
_DRIVER = re.compile(r"^(postgres|postgresql)(\+\w+)?$")  # as in SQLAlchemy's `postgresql+psycopg://`
_known: dict[str, str] = {}


def clean(url: str) -> str:
    """Return a URL without what is secret in it, which is remembered for `password`."""
    pieces = urlsplit(url)
    login, at, host = pieces.netloc.rpartition("@")
    user, _, secret = login.partition(":")
    said = parse_qsl(pieces.query, keep_blank_values=True)
    secrets = [value for name, value in said if name.lower() in _SECRET_OPTIONS]
    kept = [(name, value) for name, value in said if name.lower() not in _SECRET_OPTIONS]
    scheme = _DRIVER.sub("postgresql", pieces.scheme)
    netloc = f"{user}{at}{host}" if user else host
    options = f"?{urlencode(kept, quote_via=quote)}" if kept else ""
    bare = f"{scheme}://{netloc}{pieces.path.rstrip('/')}{options}"
    if secret or secrets:
        remember(bare, unquote(secret) if secret else secrets[0])
    return bare


def remember(url: str, secret: str) -> None:
    """Use a secret for the server of a URL, as long as this process lives."""
    _known[_server(url)] = secret


def remember_file(url: str, file: str) -> None:
    """Use what the first line of a file says; `StoreError` when it can't be read."""
    path = Path(file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StoreError(
            f"the password of {url} could not be read from {path}: {said}", hint=f"ls -l {shlex.quote(str(path))}"
        ) from error
    remember(url, lines[0] if lines else "")


def password(url: str, environ: Mapping[str, str] = os.environ, *variables: str) -> str | None:
    """Return the secret of the server of a URL: what was given, else what one of the variables says.

    A variable `NAME_FILE` of the environment names a file that holds what `NAME` would.
    """
    if _server(url) not in _known:
        for name in variables:
            if environ.get(name):
                return environ[name]
            if environ.get(f"{name}_FILE"):
                remember_file(url, environ[f"{name}_FILE"])
    return _known.get(_server(url))


def known(url: str) -> bool:
    """Say whether this process was given a secret for the server of a URL."""
    return _server(url) in _known


def same_server(one: str, other: str) -> bool:
    """Say whether two URLs without secrets are of one server and one user, who have one password."""
    return _server(one) == _server(other)


def _server(url: str) -> str:
    pieces = urlsplit(url)
    return f"{pieces.scheme}://{pieces.netloc}"
