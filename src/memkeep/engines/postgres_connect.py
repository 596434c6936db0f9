"""Connections to a Postgres server: by a URL and libpq's own ways, and fit for a pooler that shares sessions.

Nothing is prepared on the server and every setting is local to its transaction, so that a connection may be another
session after each transaction (PgBouncer, Neon, Supabase).
"""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from memkeep.engines import logins
from memkeep.errors import StoreError, UnstableError, UnsupportedError, UsageError

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

PATIENCE = 10  # seconds for a connection, and for a lock that another session holds
# What products put into a URL for their own driver or pool, and libpq does not know.
_FOREIGN = frozenset(
    {
        "connection_limit",
        "pgbouncer",
        "pool_size",
        "pool_timeout",
        "prepared_statements",
        "schema",
        "socket_timeout",
        "sslaccept",
        "statement_cache_size",
    }
)
_DENIED = ("authentication failed", "no password supplied", "pg_hba.conf", "is not permitted", "permission denied")


def library() -> Any:
    """Return psycopg; `UnsupportedError` when it is not installed."""
    try:
        import psycopg
    except ImportError as error:
        raise UnsupportedError(
            "the driver for Postgres is not installed", hint="pip install 'memkeep[postgres]'", code="extra_missing"
        ) from error
    logging.getLogger("psycopg").addHandler(logging.NullHandler())  # what breaks off is raised, not also printed
    return psycopg


@contextmanager
def connected(url: str) -> "Iterator[Connection]":
    """Connect, in autocommit mode; what the server says no to becomes an error of memkeep's own."""
    psycopg = library()
    try:
        options = psycopg.conninfo.conninfo_to_dict(_for_libpq(url))
    except psycopg.ProgrammingError as error:
        raise UsageError(
            f"{url} is no URL that Postgres understands: {_said(error)}", hint="postgresql://user@host/db"
        ) from error
    secret = logins.password(url)
    if secret is not None:
        options["password"] = secret
    options = {"connect_timeout": PATIENCE, "application_name": "memkeep", "keepalives_idle": 30} | options
    try:
        connection = psycopg.connect(**options | {"client_encoding": "UTF8"}, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise _no_connection(error, url) from error
    try:
        with told(url):
            yield connection
    finally:
        connection.close()


@contextmanager
def told(url: str) -> Iterator[None]:
    """Turn what a server answers, or that it no longer does, into an error of memkeep's own."""
    psycopg = library()
    errors = psycopg.errors
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise StoreError(
            f"{url} denies it: {_said(error)}", hint=f"ask who runs {_host(url)}", code="store_denied"
        ) from error
    except (errors.LockNotAvailable, errors.SerializationFailure, errors.DeadlockDetected) as error:
        raise UnstableError(
            f"{url} is being changed by another session: {_said(error)}", hint="memkeep backup"
        ) from error
    except (errors.DiskFull, errors.OutOfMemory, errors.ConfigurationLimitExceeded) as error:
        raise StoreError(
            f"{url} has no room left: {_said(error)}", hint="free some room there", code="store_full"
        ) from error
    except psycopg.OperationalError as error:
        if error.sqlstate is None or error.sqlstate[:2] in {"08", "57"}:
            raise StoreError(
                f"the connection to {url} broke off: {_said(error)}", hint=_ping(url), code="store_unreachable"
            ) from error
        raise StoreError(f"{url} failed: {_said(error)}", hint=_ping(url)) from error
    except psycopg.Error as error:
        raise StoreError(f"{url} failed: {_said(error)}", hint=_ping(url)) from error


def _no_connection(error: Exception, url: str) -> StoreError:
    said = _said(error)
    if "does not exist" in said and "database" in said:
        others = shlex.quote(urlsplit(url)._replace(path="/postgres").geturl())
        return StoreError(f"{url} is not there: {said}", hint=f"psql {others} -l", code="store_missing")
    if any(word in said for word in _DENIED) or "does not exist" in said:
        return StoreError(
            f"{url} lets nobody in like this: {said}",
            hint=f"psql {shlex.quote(url)}   # give PGPASSWORD, or a line in ~/.pgpass",
            code="store_denied",
        )
    return StoreError(f"{url} cannot be reached: {said}", hint=_ping(url), code="store_unreachable")


def _for_libpq(url: str) -> str:
    pieces = urlsplit(url)
    options = parse_qsl(pieces.query, keep_blank_values=True)
    kept = [(name, value) for name, value in options if name not in _FOREIGN]
    return urlunsplit(("postgresql", pieces.netloc, pieces.path, urlencode(kept, quote_via=quote), ""))


def _said(error: Exception) -> str:
    """Return what libpq or the server said, on one line."""
    detail = getattr(getattr(error, "diag", None), "message_detail", None)
    return "; ".join(line.strip() for text in (str(error), detail or "") for line in text.splitlines() if line.strip())


def _ping(url: str) -> str:
    return f"psql {shlex.quote(url)} -c 'SELECT 1'"


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the server"
