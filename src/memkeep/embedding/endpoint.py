"""Asking an embedding endpoint over HTTP, and what its refusals mean."""

import email.utils
from datetime import UTC
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from memkeep import clock
from memkeep.embedding.base import TextRefusedError, TryLaterError
from memkeep.embedding.pace import Pace
from memkeep.errors import EmbedderError, UnsupportedError, UsageError

if TYPE_CHECKING:
    import httpx

TIMEOUT = 120.0  # seconds for a whole answer: a model may have to be loaded first
_CONNECT = 10.0
_NEAR = ("localhost", "127.", "::1")
_MOST = 512 << 20  # bytes of an answer
_OK = 200
_DENIED = (401, 403)
_MISSING = (404, 405)
_TEXTS = (400, 413, 422)  # the request was understood, and its texts are what is wrong
_BUSY = (429, 503, 529)
_SPENT = ("insufficient_quota", "billing")  # of 429: waiting does not help
_SHOWN = 300  # characters of what an endpoint says


class Endpoint:
    """Connections to one address, kept open."""

    def __init__(self, url: str, *, key: str | None, pace: Pace, timeout: float, hint: str) -> None:
        """Connect at the first request; `hint` is the command that shows whether anybody is there."""
        pieces = urlsplit(url)
        if pieces.scheme not in {"http", "https"} or not pieces.hostname:
            raise UsageError(f"{url} is not the address of an endpoint", hint="memkeep embed --help")
        if pieces.username or pieces.password:
            raise UsageError(
                "a key or password is not given in an address: others can see it", hint="memkeep embed --help"
            )
        self.url = url.rstrip("/")
        self._hint = hint
        self._pace = pace
        self._timeout = timeout
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._secure = pieces.scheme == "https"
        self._near = pieces.hostname.startswith(_NEAR)
        self._opening = Lock()
        self._opened: httpx.Client | None = None

    def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            self._opened.close()

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        """Return the answer to a JSON request; raises what `base` says, `MissingError` where nothing is there."""
        client = self._client()
        import httpx

        request = client.build_request(
            "POST",
            self.url + path,
            content=msgspec.json.encode(body),
            headers={"content-type": "application/json", "accept": "application/json"},
        )
        try:
            with self._pace.slot():
                answer = client.send(request, stream=True)
                try:
                    data = self._read(answer)
                finally:
                    answer.close()
        except httpx.ConnectError as error:
            raise UnreachableError(f"{self.url} can't be reached: {error}", hint=self._hint) from error
        except httpx.TimeoutException as error:
            raise TryLaterError(f"no answer in {self._timeout:g} seconds") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise TryLaterError(f"it broke off: {str(error) or type(error).__name__}") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UsageError(f"{self.url} is not the address of an endpoint", hint="memkeep embed --help") from error
        if answer.status_code == _OK:
            return data
        raise self._meant(answer.status_code, answer.headers, data)

    def _client(self) -> "httpx.Client":
        """Return the connections, which a run that asks nobody does not need."""
        with self._opening:
            if self._opened is None:
                try:
                    import httpx
                except ImportError as error:
                    raise UnsupportedError(
                        "an embedding endpoint can't be asked without the package httpx",
                        hint="pip install 'memkeep[embed]'",
                    ) from error
                self._opened = httpx.Client(
                    headers=self._headers,
                    timeout=httpx.Timeout(self._timeout, connect=min(self._timeout, _CONNECT)),
                    limits=httpx.Limits(max_connections=None),
                    verify=self._secure,
                    trust_env=not self._near,  # a proxy is no way to oneself
                )
            return self._opened

    def _read(self, answer: "httpx.Response") -> bytes:
        """Return the whole body, which has to come in time: an endpoint may drip for ever."""
        begun, data = clock.monotonic(), bytearray()
        for piece in answer.iter_bytes():
            data += piece
            if clock.monotonic() - begun > self._timeout:
                raise TryLaterError(f"no whole answer in {self._timeout:g} seconds")
            if len(data) > _MOST:
                raise TryLaterError("an answer without end")
        return bytes(data)

    def _meant(self, status: int, headers: "httpx.Headers", data: bytes) -> Exception:
        said = told(data)
        shown = f"{self.url} answered {status}" + (f": {said}" if said else "")
        if status in _TEXTS:
            return TextRefusedError(said or f"status {status}")
        if status in _DENIED:
            return EmbedderError(
                shown, hint="export OPENAI_API_KEY=...   # or give --key-file FILE", code="embedder_denied"
            )
        if status in _MISSING:
            return MissingError(shown, hint=self._hint, code="embedder_missing")
        after = _seconds(headers.get("retry-after"))
        if status in _BUSY and not (after is None and any(word in said for word in _SPENT)):
            return TryLaterError(shown, after=after, busy=status in _BUSY)
        if status >= 500:  # noqa: PLR2004 - the server's own failures
            return TryLaterError(shown, after=after)
        return EmbedderError(shown, hint=self._hint)


class MissingError(EmbedderError):
    """The endpoint has no such path or no such model."""


class UnreachableError(EmbedderError):
    """Nobody answers at the address."""

    code = "embedder_unreachable"


def told(data: bytes) -> str:
    """Return what an endpoint says of a failure, in few characters."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        found = data.decode("utf-8", "replace")
    for _ in range(3):
        if isinstance(found, dict):
            found = found.get("error") or found.get("message") or found.get("detail") or ""
    text = " ".join(str(found).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _seconds(said: str | None) -> float | None:
    """Return how long `Retry-After` asks to wait: seconds, or a date."""
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        at = email.utils.parsedate_to_datetime(said)
    except ValueError:
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return max(0.0, (at - clock.now()).total_seconds())
