"""An embedding endpoint on loopback: it speaks as OpenAI's and Ollama's do, counts, and lies when it is told to.

with embedder() as server:
    memkeep embed STORE --provider ollama --url SERVER.URL --model any

A vector is of unit length and follows from model and text alone. `serving` requests are served at once, each for
`seconds`; more wait in line. `busy` says how much of that was used.
"""

import base64
import json
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Literal

from memkeep import clock

if TYPE_CHECKING:
    import numpy as np

Fault = Literal["429", "busy", "500", "503", "401", "few", "dims", "nan", "zeros", "torn", "hang", "close", "other"]
"""429: too many requests, come at once. busy: come in a second. few: a vector too few. dims: of another size. nan: one
is no number. torn: half of the JSON. hang: no answer. close: the connection ends. other: another shape of JSON."""
_DIMS = 32
_STATUS = {"429": 429, "busy": 429, "500": 500, "503": 503, "401": 401}


class Embedder(ThreadingHTTPServer):
    """The server. `url` is Ollama's address, `url + "/v1"` OpenAI's."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *, dims: int, serving: int, seconds: float, models: tuple[str, ...], old: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.dims = dims
        self.models = models  # which it has; all when empty
        self.old = old  # an Ollama without /api/embed
        self.packs = True  # knows `encoding_format`
        self.longest = 10**9  # characters of a text that it takes
        self.poison = "\0"  # a text with this in it makes it fail
        self.faults: deque[Fault | None] = deque()  # of the next requests, one each
        self.key: str | None = None  # wanted
        self.served: Counter[str] = Counter()  # texts by how often they were answered
        self.requests = 0
        self.most = 0  # requests at one time
        self.over = Event()
        self._seconds = seconds
        self._serving = serving
        self._slots = BoundedSemaphore(serving)
        self._lock = Lock()
        self._now = 0
        self._spent = 0.0
        self._first: float | None = None
        self._last = 0.0

    @property
    def busy(self) -> float:
        """The share of its time, from the first request's beginning to the last one's end, in which it worked."""
        if self._first is None or self._last <= self._first:
            return 0.0
        return self._spent / (self._serving * (self._last - self._first))

    def vectors(self, model: str, texts: list[str], dims: int = 0) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return the vectors of texts."""
        import numpy as np
        from blake3 import blake3

        size = dims or self.dims
        bits = b"".join(blake3(f"{model}\0{text}".encode("utf-8", "surrogatepass")).digest(4 * size) for text in texts)
        made = np.frombuffer(bits, "<i4").reshape(len(texts), size).astype(np.float32)
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)

    @contextmanager
    def work(self, texts: list[str]) -> Iterator[Fault | None]:
        """Serve one request: wait for a slot, then work; give the fault that it is to have."""
        with self._lock:
            self.requests += 1
            self._now += 1
            self.most = max(self.most, self._now)
            fault = self.faults.popleft() if self.faults else None
        try:
            with self._slots:
                begun = clock.monotonic()
                with self._lock:
                    self._first = begun if self._first is None else self._first
                if fault not in _STATUS and self._seconds:
                    clock.pause(self._seconds)
                yield fault
                with self._lock:
                    self._last = clock.monotonic()
                    self._spent += self._last - begun
                    if fault is None:
                        self.served.update(texts)
        finally:
            with self._lock:
                self._now -= 1

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that are gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Embedder

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        """Answer a request for vectors."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        given = body.get("input", body.get("prompt"))
        texts = [given] if isinstance(given, str) else given
        known = {"/v1/embeddings", "/api/embeddings"} | (set() if self.server.old else {"/api/embed"})
        if self.path not in known:
            self._say(404, b"404 page not found")
        elif self.server.key is not None and self.headers["authorization"] != f"Bearer {self.server.key}":
            self._fail(401, "Incorrect API key provided")
        elif self.server.models and body["model"] not in self.server.models:
            self._fail(404, f'model "{body["model"]}" not found, try pulling it first')
        elif not self.server.packs and body.get("encoding_format") == "base64":
            self._fail(400, "encoding_format is not supported")
        elif any(len(text) > self.server.longest for text in texts):
            self._fail(400, "the input length exceeds the context length")
        else:
            with self.server.work(texts) as fault:
                self._answer(body, texts, "500" if any(self.server.poison in text for text in texts) else fault)

    def _answer(self, body: dict[str, Any], texts: list[str], fault: Fault | None) -> None:
        if fault == "hang":
            self.server.over.wait()
        if fault in {"hang", "close"}:
            self.close_connection = True
            return
        if fault in _STATUS:
            more = {"retry-after": {"429": "0", "busy": "1"}[fault]} if fault in {"429", "busy"} else {}
            self._fail(_STATUS[fault], "not now", **more)
            return
        made = self.server.vectors(body["model"], texts, body.get("dimensions", 0))
        if fault == "few":
            made = made[:-1]
        elif fault == "dims":
            made = made[:, :-1]
        elif fault in {"nan", "zeros"}:
            made[-1] = float("nan") if fault == "nan" else 0
        data = json.dumps({"rows": []} if fault == "other" else self._shape(body, made)).encode()
        self._say(200, data[: len(data) // 2] if fault == "torn" else data)

    def _shape(self, body: dict[str, Any], made: "np.ndarray[Any, np.dtype[np.float32]]") -> dict[str, Any]:
        if self.path == "/api/embeddings":
            return {"embedding": made[0].tolist()}
        if self.path == "/api/embed":
            return {"model": body["model"], "embeddings": made.tolist()}
        packed = body.get("encoding_format") == "base64"
        shown = [base64.b64encode(row.tobytes()).decode() if packed else row.tolist() for row in made]
        data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(shown)]
        return {"object": "list", "model": body["model"], "data": data[::-1]}

    def _fail(self, status: int, message: str, **headers: str) -> None:
        error = {"message": message} if self.path.startswith("/v1") else message
        self._say(status, json.dumps({"error": error}).encode(), **headers)

    def _say(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def embedder(
    *, dims: int = _DIMS, serving: int = 4, seconds: float = 0.0, models: tuple[str, ...] = (), old: bool = False
) -> Iterator[Embedder]:
    """Run an endpoint in a thread."""
    server = Embedder(dims=dims, serving=serving, seconds=seconds, models=models, old=old)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
