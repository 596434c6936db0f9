"""The REST interface over the wire: proxies, connections that end, answers that are cut, keys that fit no header."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from memkeep.engines.qdrant_http import Server, address
from memkeep.errors import StoreError, UnsupportedError

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer, ended: threading.Event | None = None) -> Iterator[str]:
    """Answer requests on loopback; gives host and port. `ended` is set when a connection was closed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    class Ending(ThreadingHTTPServer):
        def shutdown_request(self, request: Any) -> None:
            super().shutdown_request(request)
            if ended is not None:
                ended.set()

    with Ending(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def say(handler: BaseHTTPRequestHandler, data: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("content-length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)


def test_a_proxy_is_asked_for_servers_elsewhere_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append((handler.path, handler.headers["host"], handler.headers["proxy-authorization"]))
        say(handler, b'{"version": "1.16.3"}')

    with serving(answer) as place:
        monkeypatch.setenv("http_proxy", f"http://me:s%20x@{place}")
        with Server(address("qdrant://qdrant.example:7000/notes")) as server:
            assert server.version() == "1.16.3"
        with Server(address(f"qdrant://{place}/notes")) as server:
            assert server.version() == "1.16.3"
        monkeypatch.setenv("no_proxy", "qdrant.invalid")
        with Server(address("qdrant://qdrant.invalid:7000/notes")) as server, pytest.raises(StoreError) as caught:
            server.version()
    assert asked[0] == ("http://qdrant.example:7000/", "qdrant.example:7000", "Basic bWU6cyB4")
    assert asked[1] == ("/", place, None)
    assert caught.value.code == "store_unreachable"


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(UnsupportedError, match="socks5"):
        Server(address("qdrant://qdrant.example/notes"))


def test_a_connection_that_the_server_has_ended_is_made_anew() -> None:
    peers = []
    ended = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        peers.append(handler.client_address)
        say(handler, b'{"result": 1}')
        handler.close_connection = len(peers) == 1  # without having said so

    with serving(answer, ended) as place, Server(address(f"qdrant://{place}/notes")) as server:
        assert server.get("/") == 1
        assert ended.wait(10)
        assert server.get("/") == 1
        assert server.get("/") == 1
    assert peers[0] != peers[1] == peers[2]


def test_other_requests_are_made_while_a_stream_goes_on() -> None:
    with (
        serving(lambda handler: say(handler, b'{"result": "here"}')) as place,
        Server(address(f"qdrant://{place}/notes")) as server,
        server.stream("/snapshot") as buffers,
    ):
        assert server.get("/") == "here"
        assert b"".join(buffers) == b'{"result": "here"}'


def read_all(server: Server) -> list[bytes]:
    with server.stream("/snapshot") as buffers:
        return list(buffers)


@pytest.mark.parametrize("ask", [read_all, lambda server: server.get("/")])
def test_an_answer_that_is_cut_is_told(ask: Callable[[Server], object]) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        say(handler, b'{"result": 1}', length=1000)
        handler.close_connection = True

    with (
        serving(answer) as place,
        Server(address(f"qdrant://{place}/notes")) as server,
        pytest.raises(StoreError, match="connection broke") as caught,
    ):
        ask(server)
    assert caught.value.code == "store_unreachable"


@pytest.mark.parametrize("said", [b"<html>hello</html>", b"[1, 2]", b"7"])
def test_who_answers_otherwise_is_no_qdrant(said: bytes) -> None:
    with (
        serving(lambda handler: say(handler, said)) as place,
        Server(address(f"qdrant://{place}/notes")) as server,
        pytest.raises(StoreError, match="does not answer like a Qdrant server"),
    ):
        server.get("/")


def test_a_key_that_no_header_can_hold_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "one\ntwo")
    with pytest.raises(StoreError, match="no request can carry") as caught:
        Server(address("qdrant://127.0.0.1:1/notes"))
    assert caught.value.code == "store_denied"
    assert "two" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("qdrant://127.0.0.1:1/memories", "qdrant://127.0.0.1:1/memories is not to be reached"),
        ("qdrants://127.0.0.1:1/behind/memories", "qdrants://127.0.0.1:1/behind/memories is not to be reached"),
    ],
)
def test_what_fails_is_called_by_the_url_that_was_given(url: str, told: str) -> None:
    with pytest.raises(StoreError) as caught, Server(address(url)) as server:
        server.version()
    assert caught.value.message.startswith(told)
    with pytest.raises(StoreError) as caught, Server(address(url).on("127.0.0.2")) as server:
        server.version()
    assert caught.value.message.startswith(f"{url} on its node 127.0.0.2:1 is not")
