"""Talking to a Qdrant server: its address, its REST interface, and what its refusals mean.

`qdrant://host:port/collection` is plain HTTP, `qdrants://` is HTTPS. What stands between the port and the last name
is a path of a proxy before the server. The API key comes from the environment (see `logins`), never from a part.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote, urlsplit

import msgspec

from memkeep.engines import logins
from memkeep.errors import StoreError, UnsupportedError, UsageError
from memkeep.model import Value

if TYPE_CHECKING:
    import httpx

PORT = 6333
VARIABLE = "QDRANT_API_KEY"
_SCHEMES = {"qdrant": "http", "qdrants": "https"}
_CONNECT = 10.0  # seconds
_SILENCE = 300.0  # seconds between two bytes: a snapshot of a large shard begins when its segments are flushed
_BUFFER = 1 << 20
_NEAR = ("localhost", "127.", "::1")
_REFUSED = (401, 403)
_MISSING = 404
_OK = 200
_encode = msgspec.json.Encoder().encode


class Address(Value):
    """A server, and perhaps a collection in it."""

    url: str
    base: str  # of the REST interface, without a slash at its end
    collection: str

    @property
    def path(self) -> str:
        """The collection's path in the REST interface."""
        return f"/collections/{quote(self.collection, safe='')}"

    def on(self, host: str) -> "Address":
        """Return the same collection on another node of the cluster: same scheme and port."""
        pieces = urlsplit(self.base)
        name = f"[{host}]" if ":" in host else host
        base = pieces._replace(netloc=f"{name}:{pieces.port}").geturl()
        return Address(url=self.url, base=base, collection=self.collection)


def address(url: str) -> Address:
    """Return what a URL names; raises `UsageError` when it is none of Qdrant."""
    pieces = urlsplit(url)
    if pieces.scheme not in _SCHEMES or not pieces.hostname:
        raise UsageError(f"{url} is not the URL of a Qdrant collection", hint="memkeep backup qdrant://localhost/NAME")
    host = f"[{pieces.hostname}]" if ":" in pieces.hostname else pieces.hostname
    before, _, name = pieces.path.rstrip("/").rpartition("/")
    base = f"{_SCHEMES[pieces.scheme]}://{host}:{pieces.port or PORT}{before}"
    return Address(url=url, base=base, collection=unquote(name))


class Server:
    """A connection to one node."""

    def __init__(self, where: Address) -> None:
        """Connect at the first request."""
        try:
            import httpx
        except ImportError as error:
            raise UnsupportedError(
                "a Qdrant server can't be read without the package httpx", hint="pip install 'memkeep[qdrant]'"
            ) from error
        self.where = where
        key = logins.password(where.url, os.environ, VARIABLE)
        host = urlsplit(where.base).hostname or ""
        self._client = httpx.Client(
            base_url=where.base,
            headers={"api-key": key} if key else {},
            timeout=httpx.Timeout(_SILENCE, connect=_CONNECT),
            verify=where.base.startswith("https:"),  # reading all certificates takes a while
            trust_env=not host.startswith(_NEAR),  # a proxy is no way to oneself
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **params: str) -> Any:
        """Return the result of a GET."""
        return self._ask("GET", path, params=params)

    def send(self, method: str, path: str, body: object = None, **params: str) -> Any:
        """Return the result of a request with a JSON body."""
        content = None if body is None else _encode(body)
        return self._ask(method, path, params=params, content=content, headers={"content-type": "application/json"})

    def upload(self, path: str, file: Any, **params: str) -> Any:
        """Return the result of sending a file."""
        return self._ask("POST", path, params=params, files={"snapshot": ("part.snapshot", file)})

    def version(self) -> str:
        """Return the server's version."""
        with self._said("/"):
            answer = self._client.get("/")
            self._checked(answer, "/")
            return str(answer.json().get("version", ""))

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Give the bytes of an answer as they come, uncompressed."""
        with self._said(path), self._client.stream("GET", path, headers={"accept-encoding": "identity"}) as answer:
            if answer.status_code != _OK:
                answer.read()
            self._checked(answer, path)
            yield answer.iter_raw(_BUFFER)

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        with self._said(path):
            answer = self._client.request(method, path, **more)
            self._checked(answer, path)
            return answer.json().get("result")

    def _checked(self, answer: "httpx.Response", path: str) -> None:
        """Raise what a refusal means."""
        if answer.status_code == _OK:
            return
        said = _reason(answer)
        if answer.status_code in _REFUSED:
            raise StoreError(
                f"{self.where.base} refused the request: {said}",
                code="store_denied",
                hint=f"export {VARIABLE}_FILE=FILE",
            )
        if answer.status_code == _MISSING:
            raise StoreError(
                f"{self.where.base}{path} is not there: {said}",
                code="store_missing",
                hint=f"curl {self.where.base}/collections",
            )
        raise StoreError(f"{self.where.base}{path} failed: {said}", hint=f"curl {self.where.base}/")

    @contextmanager
    def _said(self, path: str) -> Iterator[None]:
        """Say in a `StoreError` what a connection did."""
        import httpx

        try:
            yield
        except httpx.ConnectError as error:
            raise self._unreachable(str(error) or "no answer") from error
        except httpx.TimeoutException as error:
            raise self._unreachable(f"no answer in time to {path}") from error
        except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL) as error:
            raise self._unreachable(f"the connection broke at {path}: {error}") from error
        except ValueError as error:
            raise StoreError(
                f"{self.where.base} does not answer like a Qdrant server", hint=f"curl {self.where.base}/"
            ) from error

    def _unreachable(self, why: str) -> StoreError:
        return StoreError(
            f"{self.where.base} is not to be reached: {why}", code="store_unreachable", hint=f"curl {self.where.base}/"
        )


def _reason(answer: "httpx.Response") -> str:
    """Return what the server gave as its reason."""
    try:
        status = answer.json()["status"]
        return str(status["error"] if isinstance(status, dict) else status)
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200].strip()}".strip()
