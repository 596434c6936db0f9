"""Talking to a Qdrant server: its address, its REST interface, and what its refusals mean.

`qdrant://host:port/collection` is plain HTTP, `qdrants://` is HTTPS. What stands between the port and the last name
is a path of a proxy before the server. The API key comes from the environment (see `logins`), never from a part.
"""

import base64
import json
import os
import select
import shlex
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec

from memkeep import clock
from memkeep.engines import logins
from memkeep.errors import StoreError, UnsupportedError, UsageError
from memkeep.model import Value

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse
    from ssl import SSLError
    from urllib.parse import SplitResult

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
_TOO_MANY = 429
_PATIENCE = 10  # times that a server which lets only so many requests in is asked
_LONGEST = 60  # seconds, of one wait
_PROXY_PORT = 80
_UNKNOWN_SIGNER = frozenset({18, 19, 20, 21})  # OpenSSL's X509_V_ERR: signed by itself, by whom nobody knows
_BOUNDARY = "between-the-parts-of-a-form"
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

    @property
    def told(self) -> str:
        """What a person knows it by: the URL, and the node where that is another one."""
        mine = address(self.url).base
        return self.url if mine == self.base else f"{self.url} on its node {urlsplit(self.base).netloc}"

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
    """A connection to one node. Use from one thread."""

    def __init__(self, where: Address) -> None:
        """Connect at the first request."""
        self.where = where
        base = urlsplit(where.base)
        key = logins.password(where.url, os.environ, VARIABLE)
        if key and not (key.isascii() and key.isprintable()):
            raise StoreError(
                f"the API key of {where.told} has characters that no request can carry",
                code="store_denied",
                hint=f"export {VARIABLE}_FILE=FILE",
            )
        self._headers = {"api-key": key} if key else {}
        self._prefix = base.path
        self._proxy = _proxy(base)
        if self._proxy is not None and base.scheme == "http":
            self._prefix = where.base
            self._headers |= _login(self._proxy)
        self._kept: HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    def get(self, path: str, **params: str) -> Any:
        """Return the result of a GET."""
        return self._ask("GET", _target(path, params)).get("result")

    def send(self, method: str, path: str, body: object = None, **params: str) -> Any:
        """Return the result of a request with a JSON body."""
        content = None if body is None else _encode(body)
        return self._ask(method, _target(path, params), content, {"content-type": "application/json"}).get("result")

    def upload(self, path: str, file: IO[bytes], **params: str) -> Any:
        """Return the result of sending a file, all of it."""
        said = 'form-data; name="snapshot"; filename="part.snapshot"'
        head = (
            f"--{_BOUNDARY}\r\nContent-Disposition: {said}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        )
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        length = len(head) + file.seek(0, os.SEEK_END) + len(tail)
        file.seek(0)

        def form() -> Iterator[bytes]:
            yield head
            while data := file.read(_BUFFER):
                yield data
            yield tail

        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        headers = {"content-type": kind, "content-length": str(length)}
        return self._ask("POST", _target(path, params), form(), headers).get("result")

    def version(self) -> str:
        """Return the server's version."""
        return str(self._ask("GET", "/").get("version", ""))

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Give the bytes of an answer as they come, uncompressed; other requests may be made meanwhile."""
        with closing(self._connect(path)) as connection:
            with self._said(path):
                answer = self._begin(connection, "GET", path)
                if answer.status != _OK:
                    raise self._refused(answer.status, answer.read(), path)
            yield self._buffers(answer, path)

    def _buffers(self, answer: "HTTPResponse", path: str) -> Iterator[bytes]:
        while True:
            with self._said(path):
                data = answer.read1(_BUFFER)
            if not data:
                break
            yield data
        if answer.length:
            raise self._unreachable(f"the connection broke at {path}: {answer.length} bytes are missing")

    def _ask(
        self,
        method: str,
        target: str,
        content: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return an answer; a server that lets only so many requests in is asked again. Raises `StoreError`."""
        path = target.partition("?")[0]
        for _ in range(_PATIENCE):
            answer, data = self._answer(path, method, target, content, headers)
            if answer.status != _TOO_MANY or not isinstance(content, bytes | None):
                break
            said = answer.headers.get("retry-after", "")
            clock.pause(min(float(said) if said.isdecimal() else 1, _LONGEST))
        if answer.status != _OK:
            raise self._refused(answer.status, data, path)
        try:
            return dict(json.loads(data))
        except (ValueError, TypeError) as error:
            raise self._stranger() from error

    def _answer(
        self,
        path: str,
        method: str,
        target: str,
        content: bytes | Iterable[bytes] | None,
        headers: dict[str, str] | None,
    ) -> "tuple[HTTPResponse, bytes]":
        if self._kept is not None and _ended(self._kept):
            self._drop()
        if self._kept is None:
            self._kept = self._connect(path)
        data = None
        try:
            with self._said(path):
                answer = self._begin(self._kept, method, target, content, headers)
                data = answer.read()
        finally:
            if data is None:  # nothing more can be asked on it
                self._drop()
        return answer, data

    def _begin(
        self,
        connection: "HTTPConnection",
        method: str,
        target: str,
        content: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> "HTTPResponse":
        """Ask, and return the beginning of the answer."""
        connection.request(method, self._prefix + target, content, self._headers | (headers or {}))
        return connection.getresponse()

    def _connect(self, path: str) -> "HTTPConnection":
        import ssl
        from http.client import HTTPConnection, HTTPSConnection

        base = urlsplit(self.where.base)
        to = self._proxy or base
        host, port = to.hostname or "", to.port or _PROXY_PORT
        connection = HTTPConnection(host, port, timeout=_CONNECT)
        if base.scheme == "https":
            connection = HTTPSConnection(host, port, timeout=_CONNECT, context=ssl.create_default_context())
            if self._proxy is not None:
                connection.set_tunnel(base.hostname or "", base.port, headers=_login(self._proxy))
        try:
            connection.connect()
        except TimeoutError as error:
            raise self._unreachable(f"no answer in time to {path}") from error
        except ssl.SSLError as error:
            raise self._untrusted(error) from error
        except (OSError, UnicodeError) as error:
            raise self._unreachable(str(error) or "no answer") from error
        connection.sock.settimeout(_SILENCE)
        return connection

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    def _refused(self, status: int, data: bytes, path: str) -> StoreError:
        """Return what a refusal means."""
        said = _reason(status, data)
        if status in _REFUSED:
            which = "   # of a key that may manage the collection: others get no snapshot of it"
            return StoreError(
                f"{self.where.told} refused the request: {said}",
                code="store_denied",
                hint=f"export {VARIABLE}_FILE=FILE" + (which if "access is required" in said else ""),
            )
        if status == _MISSING:
            return StoreError(
                f"{self.where.told} is not there: {said}",
                code="store_missing",
                hint=f"curl {self.where.base}/collections",
            )
        return StoreError(f"{self.where.told} failed at {path}: {said}", hint=f"curl {self.where.base}/")

    @contextmanager
    def _said(self, path: str) -> Iterator[None]:
        """Say in a `StoreError` what a connection did."""
        from http.client import BadStatusLine, HTTPException, RemoteDisconnected

        try:
            yield
        except TimeoutError as error:
            raise self._unreachable(f"no answer in time to {path}") from error
        except BadStatusLine as error:
            if isinstance(error, RemoteDisconnected):
                raise self._unreachable(f"the connection broke at {path}: {error}") from error
            raise self._stranger() from error
        except (HTTPException, OSError) as error:
            raise self._unreachable(f"the connection broke at {path}: {error}") from error

    def _stranger(self) -> StoreError:
        return StoreError(f"{self.where.told} does not answer like a Qdrant server", hint=f"curl {self.where.base}/")

    def _untrusted(self, error: "SSLError") -> StoreError:
        """Return what a failure of TLS means; the server has been told nothing yet."""
        import ssl

        found = self._unreachable(str(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            found = self._unreachable(f"its certificate is refused: {error.verify_message}")
            if error.verify_code in _UNKNOWN_SIGNER:
                found.hint = "export SSL_CERT_FILE=FILE   # with the certificate of who signed the server's"
        elif error.reason == "WRONG_VERSION_NUMBER":
            found = self._unreachable("it does not speak TLS")
            found.hint = f"memkeep backup {shlex.quote(self.where.url.replace('qdrants://', 'qdrant://', 1))}"
        return found

    def _unreachable(self, why: str) -> StoreError:
        return StoreError(
            f"{self.where.told} is not to be reached: {why}", code="store_unreachable", hint=f"curl {self.where.base}/"
        )


def _target(path: str, params: dict[str, str]) -> str:
    return f"{path}?{urlencode(params)}" if params else path


def _ended(connection: "HTTPConnection") -> bool:
    """Say whether the server has ended a connection that nothing was asked on for a while."""
    if connection.sock is None:
        return True
    waiting = select.poll()
    waiting.register(connection.sock, select.POLLIN)
    return bool(waiting.poll(0))


def _proxy(base: "SplitResult") -> "SplitResult | None":
    """Return the proxy that the environment names for a server; a proxy is no way to oneself."""
    host = base.hostname or ""
    if host.startswith(_NEAR):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    named = proxies.get(base.scheme) or proxies.get("all")
    if not named or proxy_bypass(host):
        return None
    found = urlsplit(named if "://" in named else f"http://{named}")
    if found.scheme != "http":
        raise UnsupportedError(
            f"memkeep cannot go through a proxy of the kind {found.scheme}", hint=f"export NO_PROXY={host}"
        )
    return found


def _login(proxy: "SplitResult") -> dict[str, str]:
    if not proxy.username:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}


def _reason(status: int, data: bytes) -> str:
    """Return what the server gave as its reason."""
    try:
        said = json.loads(data)["status"]
        return str(said["error"] if isinstance(said, dict) else said)
    except (ValueError, KeyError, TypeError):
        return f"{status} {data.decode(errors='replace')[:200].strip()}".strip()
