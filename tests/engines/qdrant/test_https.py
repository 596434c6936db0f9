"""A real server behind TLS: whom it is taken for, and what is said when that is nobody."""

import datetime as dt
import ipaddress
import select
import shlex
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.engines.qdrant.conftest import Client

from memkeep.engines.qdrant_http import Server, address
from memkeep.errors import StoreError
from memkeep.library import OpenVault
from memkeep.testing.qdrant_server import QdrantServer

ELSEWHERE = "qdrant.example"  # no host of this machine: proxies are asked for such ones only


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a certificate that signs itself, for loopback and for a host elsewhere, and with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    hosts = [x509.DNSName(ELSEWHERE), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = tmp_path_factory.mktemp("certificate") / "server.pem"
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(made.public_bytes(pem) + private)
    return file


@contextmanager
def listening(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Handle connections to a port of loopback, each in a thread."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # what the other side makes of it is what is tested
                handle(self.request)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def carry(here: socket.socket, port: int) -> None:
    """Carry bytes between a connection and a port until one of them has ended."""
    with socket.create_connection(("127.0.0.1", port)) as there:
        while True:
            pending = isinstance(here, ssl.SSLSocket) and here.pending()
            for one in [here] if pending else select.select([here, there], [], [])[0]:
                data = one.recv(1 << 16)
                if not data:
                    return
                (there if one is here else here).sendall(data)


@pytest.fixture
def front(server: QdrantServer, certificate: Path) -> Iterator[int]:
    """Return the port of what speaks TLS before the real server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def handle(request: socket.socket) -> None:
        with context.wrap_socket(request, server_side=True) as secure:
            carry(secure, server.port)

    with listening(handle) as port:
        yield port


@contextmanager
def proxy(port: int, asked: list[bytes]) -> Iterator[int]:
    """Make tunnels to a port, whatever host is asked for."""

    def handle(request: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += request.recv(1)
        asked.append(head)
        request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        carry(request, port)

    with listening(handle) as made:
        yield made


def refused(url: str) -> StoreError:
    with pytest.raises(StoreError) as caught, Server(address(url)) as server:
        server.version()
    return caught.value


def test_a_certificate_that_nobody_has_vouched_for_is_refused_and_it_is_said_how_to_trust_it(front: int) -> None:
    error = refused(f"qdrants://127.0.0.1:{front}/notes")
    assert error.code == "store_unreachable"
    assert "self-signed certificate" in error.message
    assert "export SSL_CERT_FILE=" in error.hint


def test_a_certificate_of_another_host_is_refused_though_it_is_trusted(
    front: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    error = refused(f"qdrants://localhost:{front}/notes")
    assert "not valid for 'localhost'" in error.message
    assert "SSL_CERT_FILE" not in error.hint


def test_a_server_without_tls_is_told_apart(server: QdrantServer) -> None:
    error = refused(f"qdrants://127.0.0.1:{server.port}/notes")
    assert shlex.split(error.hint)[-1] == f"qdrant://127.0.0.1:{server.port}/notes"


def test_a_collection_is_backed_up_and_brought_back_over_tls(
    front: int, client: Client, certificate: Path, new_vault: Callable[..., OpenVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    name = client.make()
    client.put(name, [{"id": n, "vector": [n, 1, 0, 0, 0, 0, 0, 0], "payload": {"n": n}} for n in range(1, 30)])
    before = client.points(name)
    vault = new_vault()
    [report] = vault.backup(f"qdrants://127.0.0.1:{front}/{name}").snapshots
    assert (report.records, report.consistent) == (29, True)
    client.ask("DELETE", f"/collections/{name}")
    assert vault.restore(report.id, to=f"qdrants://127.0.0.1:{front}").rung == "restorable"
    assert client.points(name) == before


def test_a_tunnel_through_a_proxy_ends_at_the_server_itself(
    front: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    with proxy(front, asked) as port:
        monkeypatch.setenv("https_proxy", f"http://me:s%20x@127.0.0.1:{port}")
        assert "export SSL_CERT_FILE=" in refused(f"qdrants://{ELSEWHERE}:7000/notes").hint
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        monkeypatch.setenv("QDRANT_API_KEY", "only for the server")
        with Server(address(f"qdrants://{ELSEWHERE}:7000/notes")) as server:
            assert server.version()
        assert "not valid for" in refused("qdrants://another.example:7000/notes").message
    assert asked[1].startswith(f"CONNECT {ELSEWHERE}:7000 ".encode())
    assert b"Proxy-Authorization: Basic bWU6cyB4" in asked[1]
    assert b"only for the server" not in b"".join(asked)
