"""A connection to an SFTP server, made when it is needed and again after it broke; a private thread runs it."""

import asyncio
import contextlib
import logging
import os
import shlex
import threading
import weakref
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

from memkeep.errors import StorageError, StorageUnreachableError, UnsupportedError
from memkeep.storage.sftp_place import Place, host_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    import asyncssh

T = TypeVar("T")
_CONNECT_S = 20
_LOGIN_S = 30
_ALIVE_S = 15  # a server that says nothing is asked this often whether it lives, and given up after three times
_ANSWER_S = 300  # for at most a few MB each way
_ALGORITHMS = {  # argument -> the setting of `~/.ssh/config` that counts more, and what memkeep would have
    "encryption_algs": ("Ciphers", "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"),  # half as fast again
    # Kinds of host keys that are not known too, after those that are: so a new key is told from a broken connection.
    "server_host_key_algs": ("HostKeyAlgorithms", "+ssh-ed25519,ecdsa-sha2-nistp*,rsa-sha2-*"),
}
_WINDOW = 1 << 24  # bytes that the server may send before it must wait: what a far line holds
_SSH_PORT = 22
_UNCHANGED = "Nothing was sent."
WHOLE = "Earlier snapshots are whole; nothing half-made is listed."


class Link:
    """One live connection and its SFTP client."""

    def __init__(
        self, place: Place, loop: asyncio.AbstractEventLoop, connection: "asyncssh.SSHClientConnection", sftp: Any
    ) -> None:
        self.sftp: asyncssh.SFTPClient = sftp
        self.connection = connection
        self._place = place
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it on the private thread and wait; `StorageUnreachableError` when the connection breaks meanwhile."""
        return wait(self.start(work))

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run it on the private thread; the future raises as `run` does."""
        return asyncio.run_coroutine_threadsafe(self._guarded(work), self._loop)

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        import asyncssh

        broken = (
            OSError,  # TimeoutError among them
            asyncssh.DisconnectError,
            asyncssh.ChannelOpenError,
            asyncssh.SFTPConnectionLost,
            asyncssh.SFTPNoConnection,
        )
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await work
        except broken as error:
            self.connection.abort()
            message = f"the connection to {self._place.url} broke: {str(error) or f'no answer in {_ANSWER_S} s'}"
            raise StorageUnreachableError(message, unchanged=WHOLE, hint=self._place.ssh()) from error


def wait(future: "Future[T]") -> T:
    """Return the result of work that was started; end the work when this thread is interrupted."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class Session:
    """Connects when asked for a link and there is none that lives."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._links: list[Link] = []

    def link(self) -> Link:
        """Return the live connection, or make one.

        Raises `StorageUnreachableError` when the server can't be reached, `StorageError` when it is not known or lets
        nobody in.
        """
        with self._lock:
            self._links[:] = [link for link in self._links if not link.connection.is_closed()]
            if not self._links:
                self._links.append(wait(asyncio.run_coroutine_threadsafe(self._connect(), self._running())))
            return self._links[0]

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            # Of requests that were on the way when another failed nobody hears; nor need the terminal.
            self._loop.set_exception_handler(lambda _, __: None)
            logging.getLogger("asyncio").addHandler(logging.NullHandler())
            thread = threading.Thread(target=_serve, args=(self._loop,), name="memkeep-sftp", daemon=True)
            thread.start()
            weakref.finalize(self, _stop, self._loop, thread, self._links)
        return self._loop

    async def _connect(self) -> Link:
        try:
            import asyncssh
        except ImportError as error:
            raise UnsupportedError("sftp:// needs the library asyncssh", hint="pip install 'memkeep[sftp]'") from error
        connection = await _dial(self.place, None)
        try:
            sftp = await connection.start_sftp_client(path_errors="surrogateescape")
        except (OSError, asyncssh.Error) as error:
            connection.abort()
            message = f"{self.place.login} lets us in but gives no sftp: {error}"
            raise StorageUnreachableError(message, unchanged=_UNCHANGED, hint=self.place.ssh("-s", "sftp")) from error
        return Link(self.place, asyncio.get_running_loop(), connection, sftp)


async def _dial(place: Place, through: "asyncssh.SSHClientConnection | None") -> "asyncssh.SSHClientConnection":
    """Log in to a server, through those that its `ProxyJump` names. Each of them must be known."""
    import asyncssh

    given = {"username": place.user, "port": place.port}
    words: dict[str, Any] = {"config": _configs(), "command": None}
    words |= {word: value for word, value in given.items() if value is not None}
    try:
        read = asyncssh.SSHClientConnectionOptions(host=place.host, client_keys=None, known_hosts=b"", **words)
        known = _known_hosts(read)
        jumps = str(read.config.get("ProxyJump") or "none")
        if through is None and jumps != "none":
            for jump in jumps.split(","):
                through = await _dial(_jump(place, jump), through)
        words |= {word: ours for word, (theirs, ours) in _ALGORITHMS.items() if read.config.get(theirs) is None}
        connection = await asyncssh.connect(
            place.host,
            tunnel=through,
            known_hosts=known,
            connect_timeout=read.connect_timeout or _CONNECT_S,
            login_timeout=_LOGIN_S,
            keepalive_interval=_ALIVE_S,
            password_auth=False,
            kbdint_auth=False,
            window=_WINDOW,
            **words,
        )
    except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
        _refuse_host(place, error, read, known)
    except asyncssh.PermissionDenied as error:
        message = f"{place.login} lets none of the keys in that ssh would offer: {error}"
        hint = place.ssh().replace("ssh", "ssh-copy-id", 1)
        raise StorageError(message, unchanged=_UNCHANGED, hint=hint, code="storage_denied") from error
    except (asyncssh.ConfigParseError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        message = f"the ssh settings for {place.host} can't be used: {error}"
        raise StorageError(message, unchanged=_UNCHANGED, hint=place.ssh()) from error
    except (OSError, asyncssh.Error) as error:
        message = f"{place.login} can't be reached: {_reason(error)}"
        raise StorageUnreachableError(message, unchanged=_UNCHANGED, hint=place.ssh()) from error
    if through is not None:
        connection.set_tunnel(through)  # closed together with it
    return connection


def _refuse_host(
    place: Place, error: Exception, read: "asyncssh.SSHClientConnectionOptions", known: "asyncssh.SSHKnownHosts"
) -> NoReturn:
    """Say whether the server's key is unknown or another one than is known, and how to mend it."""
    name = read.host_key_alias or read.host
    port = read.port if read.port != _SSH_PORT else None
    if not any(known.match(name, "", port)):
        message = f"the host key of {place.host} is not known, so it can't be told from another server's: {error}"
        hint = place.ssh("exit") + "   # shows the key's fingerprint and asks"
        raise StorageError(message, unchanged=_UNCHANGED, hint=hint, code="host_key_unknown") from error
    message = (
        f"the host key of {place.host} is not the one that is known: the server was set up anew, or someone is in "
        f"between ({error})"
    )
    forget = shlex.join(("ssh-keygen", "-R", f"[{name}]:{port}" if port else name))
    hint = f"{forget}   # once you know that it was set up anew"
    raise StorageError(message, unchanged=_UNCHANGED, hint=hint, code="host_key_changed") from error


def _reason(error: Exception) -> str:
    """Return why there is no connection, as the system says it and without the number of the error."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or f"no answer in {_CONNECT_S} s"


def _jump(place: Place, jump: str) -> Place:
    """Return a place on one of the servers of a `ProxyJump`: `[user@]host[:port]`, or the same as an `ssh://` URL."""
    parts = urlsplit(jump.strip() if "://" in jump else f"ssh://{jump.strip()}")
    return place._replace(host=host_of(parts), user=parts.username, port=parts.port)


def _configs() -> list[Path]:
    path = Path("~/.ssh/config").expanduser()
    return [path] if path.is_file() else []


def _known_hosts(options: "asyncssh.SSHClientConnectionOptions") -> "asyncssh.SSHKnownHosts":
    """Read the files of known host keys that ssh would read. None of them, or `none`, means that no host is known."""
    import asyncssh

    names: list[str] = []
    for setting, usual in (
        ("UserKnownHostsFile", "~/.ssh/known_hosts"),
        ("GlobalKnownHostsFile", "/etc/ssh/ssh_known_hosts"),
    ):
        given = options.config.get(setting)
        names += [usual, f"{usual}2"] if given is None else [str(name) for name in cast("list[str]", given)]
    texts = []
    for name in names:
        with contextlib.suppress(OSError):
            texts.append(Path(name).expanduser().read_text(encoding="utf-8", errors="replace"))
    return asyncssh.import_known_hosts("\n".join(texts))


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, links: list[Link]) -> None:
    """Close what is open and end the thread."""

    async def close() -> None:
        for link in links:
            link.connection.close()
            with contextlib.suppress(Exception):  # it is given up either way
                async with asyncio.timeout(1):
                    await link.connection.wait_closed()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)
    if thread is not threading.current_thread():  # where a collection of garbage found that nobody has it any more
        thread.join(5)
