"""An SFTP server as storage: objects are written into `tmp` of a folder, synced, linked into place, and synced again.

The server is OpenSSH's or any that speaks version 3; logging in is as `ssh` does it: keys, agent, `~/.ssh/config`
(aliases, ports, `IdentityFile`, `ProxyJump`), and a host key that is known. For the URL see `sftp_place`.
"""

import asyncio
import contextlib
import os
import secrets
import shlex
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from memkeep.errors import StorageError
from memkeep.storage.base import Capabilities, ObjectExistsError, ObjectMissingError, Stat, check_key, is_key
from memkeep.storage.sftp_place import Place, parse
from memkeep.storage.sftp_session import WHOLE, Link, Session, wait

if TYPE_CHECKING:
    from concurrent.futures import Future

    import asyncssh

TMP = "tmp"
_PIECE = 1 << 22  # bytes sent in one go, as many requests of the server's size at once
_AHEAD = 2  # pieces on the way
_FOLDERS = 16  # read at once
_LEFT_S = 86400  # age in seconds at which a temporary file is no one's: its writer would have written to it
_FULL = 1 << 20  # bytes free, below which a write that failed without a reason is taken to have found the disk full


def connect(url: str) -> "SftpStorage":
    """Return the storage that an `sftp://` URL names; the server is asked when the storage is first used."""
    return SftpStorage(parse(url))


class SftpStorage:
    """Objects as files in a folder of an SFTP server, made when the first is written; folders have 0700.

    Files have 0400: where the server denies an account to remove, to rename and to change modes, not even their owner
    can change them any more (see docs/how-to/sftp.md).

    Durable where the server has `fsync@openssh.com` (OpenSSH does). A name is made with `hardlink@openssh.com`, which
    never replaces; where there are no hard links, with a rename to a name that was free just before.
    """

    folder = None

    def __init__(self, place: Place) -> None:
        self.url = place.url
        self._place = place
        self._session = Session(place)
        self._links: bool | None = None  # whether the server makes hard links, once that is known
        self._swept = False

    @property
    def capabilities(self) -> Capabilities:
        """Exclusive once the server has shown that it makes hard links."""
        return Capabilities(exclusive=bool(self._links), fresh=True, near=False)

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object: temporary file, fsync, link, and fsync for the name, which the journal keeps in order."""
        check_key(key)
        link = self._session.link()
        temporary = self._at(f"{TMP}/{os.getpid()}-{secrets.token_hex(8)}")
        with self._explained("write", key, link):
            file = link.run(self._begin(link.sftp, temporary))
        try:
            with self._explained("write", key, link):  # while a full disk is still full
                size = _send(link, file, data)
                link.run(self._publish(link.sftp, file, temporary, key))
        except BaseException:
            with contextlib.suppress(Exception):  # it is swept some day; what went wrong matters more
                link.run(_discard(link.sftp, file, temporary))
            raise
        return size

    def get(self, key: str) -> bytes:
        """Read a whole object."""
        return self._read(key, 0, -1)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Read a piece of an object."""
        return self._read(key, offset, length)

    def stat(self, key: str) -> Stat:
        """Say how large an object is."""
        check_key(key)
        link = self._session.link()
        with self._explained("read", key, link):
            size = link.run(_size(link.sftp, self._at(key)))
        if size is None:
            raise _missing(key)
        return Stat(key, size)

    def list(self, prefix: str) -> Iterator[Stat]:
        """Walk the folder that the prefix names, several of its folders at once."""
        folder = prefix.rpartition("/")[0]
        if folder and not is_key(folder):
            return
        found: deque[Stat] = deque()
        link = self._session.link()
        with self._explained("list", prefix or "all", link):
            link.run(self._walk(link.sftp, folder, prefix, found, asyncio.Semaphore(_FOLDERS)))
        yield from found

    def delete(self, key: str) -> None:
        """Remove an object's file."""
        check_key(key)
        link = self._session.link()
        with self._explained("delete", key, link):
            link.run(link.sftp.remove(self._at(key)))

    def _read(self, key: str, offset: int, length: int) -> bytes:
        check_key(key)
        link = self._session.link()
        with self._explained("read", key, link):
            return link.run(_read(link.sftp, self._at(key), offset, length))

    def _at(self, key: str) -> str:
        return f"{self._place.path.rstrip('/')}/{key}" if key else self._place.path

    async def _begin(self, sftp: "asyncssh.SFTPClient", path: str) -> "asyncssh.SFTPClientFile":
        """Open a new file in `tmp`; the first time, remove what killed writers left there."""
        import asyncssh

        async def opened() -> "asyncssh.SFTPClientFile":
            return await sftp.open(path, "xb", asyncssh.SFTPAttrs(permissions=0o400))

        try:
            file = await opened()
        except asyncssh.SFTPNoSuchFile:
            await self._make_folder(sftp, self._at(TMP))
            file = await opened()
        if not self._swept:
            self._swept = True
            now = (await file.stat()).mtime  # by the clock that dates the others
            async for entry in sftp.scandir(self._at(TMP)):
                mtime = entry.attrs.mtime
                if now is not None and mtime is not None and mtime < now - _LEFT_S and is_key(str(entry.filename)):
                    try:
                        await sftp.remove(self._at(f"{TMP}/{entry.filename!s}"))
                    except asyncssh.SFTPPermissionDenied:
                        break  # nor any other
                    except asyncssh.SFTPError:
                        continue  # another has removed it
        return file

    async def _make_folder(self, sftp: "asyncssh.SFTPClient", path: str) -> None:
        """Make a folder and those above it that are missing."""
        import asyncssh

        attrs = asyncssh.SFTPAttrs(permissions=0o700)
        try:
            await sftp.mkdir(path, attrs)
        except asyncssh.SFTPNoSuchFile:
            parent = path.rpartition("/")[0]
            if not parent:
                raise
            await self._make_folder(sftp, parent)
            with contextlib.suppress(asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):  # by another meanwhile
                await sftp.mkdir(path, attrs)
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if not await sftp.isdir(path):
                raise asyncssh.SFTPNotADirectory(f"{path} is not a folder") from None

    async def _publish(
        self, sftp: "asyncssh.SFTPClient", file: "asyncssh.SFTPClientFile", temporary: str, key: str
    ) -> None:
        import asyncssh

        target = self._at(key)
        await _sync(file)
        try:
            await self._name(sftp, temporary, target, key)
        except asyncssh.SFTPNoSuchFile:
            await self._make_folder(sftp, target.rpartition("/")[0])
            await self._name(sftp, temporary, target, key)
        await asyncio.gather(_sync(file), _discard(sftp, file, temporary))

    async def _name(self, sftp: "asyncssh.SFTPClient", temporary: str, target: str, key: str) -> None:
        """Give a file its name, which must be free."""
        import asyncssh

        message = f"{key} is there already"
        refused = (asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied, asyncssh.SFTPFileAlreadyExists)
        try:
            await sftp.link(temporary, target)
        except (*refused, asyncssh.SFTPOpUnsupported):
            if await sftp.lexists(target):
                raise ObjectExistsError(message) from None
            try:
                await sftp.rename(temporary, target)
            except refused:
                if await sftp.lexists(target):
                    raise ObjectExistsError(message) from None
                raise
            self._links = False
        else:
            self._links = self._links is not False

    async def _walk(
        self, sftp: "asyncssh.SFTPClient", folder: str, prefix: str, found: deque[Stat], gate: asyncio.Semaphore
    ) -> None:
        import asyncssh

        below = []
        try:
            async with gate:
                entries = [entry async for entry in sftp.scandir(self._at(folder))]
        except asyncssh.SFTPNoSuchFile:
            if not folder and await sftp.lexists(self._at("")):
                raise asyncssh.SFTPNotADirectory(f"{self._at('')} is not a folder") from None
            return  # or an object's key with a slash behind it
        for entry in entries:
            key = f"{folder}/{entry.filename!s}".lstrip("/")
            mode = entry.attrs.permissions or 0
            if not is_key(key):
                continue
            if stat.S_ISDIR(mode):
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    below.append(self._walk(sftp, key, prefix, found, gate))
            elif key.startswith(prefix):
                size = entry.attrs.size if stat.S_ISREG(mode) else await _size(sftp, self._at(key))
                if size is not None:
                    found.append(Stat(key, size))
        await asyncio.gather(*below)

    @contextlib.contextmanager
    def _explained(self, verb: str, key: str, link: Link) -> Iterator[None]:
        """Raise what the server says as an error of the storage, with what can be done about it."""
        import asyncssh

        try:
            yield
        except asyncssh.SFTPError as error:
            if isinstance(error, asyncssh.SFTPNoSuchFile | asyncssh.SFTPNoSuchPath) and verb != "write":
                raise _missing(key) from error
            path = shlex.quote(self._place.path)
            message = f"could not {verb} {key} in {self.url}: {error.reason or 'the server says no more than no'}"
            code, hint = "storage", self._place.ssh(f"ls -ld {path}")
            full = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)
            if isinstance(error, full) or (
                verb == "write" and isinstance(error, asyncssh.SFTPFailure) and self._is_full(link)
            ):
                code, hint = "disk_full", self._place.ssh(f"df -h {path}")
                message += "" if isinstance(error, full) else ", and its disk is full"
            elif isinstance(error, asyncssh.SFTPPermissionDenied | asyncssh.SFTPWriteProtect):
                code = "storage_denied"
            raise StorageError(message, unchanged=WHOLE, hint=hint, code=code) from error

    def _is_full(self, link: Link) -> bool:
        """Ask for the free space: version 3 has no word for a full disk."""
        import asyncssh

        try:
            space = link.run(link.sftp.statvfs(self._place.path))
        except (asyncssh.SFTPError, StorageError):
            return False
        return space.bavail * space.frsize < _FULL or space.favail == 0


def _missing(key: str) -> ObjectMissingError:
    return ObjectMissingError(f"there is no {key} in the vault")


def _send(link: Link, file: "asyncssh.SFTPClientFile", data: Iterable[bytes | memoryview]) -> int:
    """Write buffers, the next while those before are on the way; return their size."""
    size = 0
    on_the_way: deque[Future[int]] = deque()
    try:
        for piece in _pieces(data):
            if len(on_the_way) == _AHEAD:
                wait(on_the_way.popleft())
            on_the_way.append(link.start(file.write(piece, size)))
            size += len(piece)
        while on_the_way:
            wait(on_the_way.popleft())
    finally:
        for future in on_the_way:
            future.cancel()
    return size


def _pieces(data: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Join small buffers and cut large ones."""
    gathered = bytearray()
    for buffer in data:
        view = memoryview(buffer).cast("B")
        while len(view):
            taken = min(len(view), _PIECE - len(gathered))
            gathered += view[:taken]
            view = view[taken:]
            if len(gathered) == _PIECE:
                yield bytes(gathered)
                gathered.clear()
    if gathered:
        yield bytes(gathered)


async def _sync(file: "asyncssh.SFTPClientFile") -> None:
    import asyncssh

    with contextlib.suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()


async def _discard(sftp: "asyncssh.SFTPClient", file: "asyncssh.SFTPClientFile", temporary: str) -> None:
    """Close a file and remove its temporary name, where the server allows that and a rename has not done it."""
    import asyncssh

    with contextlib.suppress(asyncssh.SFTPError):
        await asyncio.gather(file.close(), sftp.remove(temporary))


async def _read(sftp: "asyncssh.SFTPClient", path: str, offset: int, length: int) -> bytes:
    async with sftp.open(path, "rb") as file:
        return await file.read(length, offset) if length else b""


async def _size(sftp: "asyncssh.SFTPClient", path: str) -> int | None:
    """Return a file's size, None when there is none or it is no file."""
    import asyncssh

    try:
        attrs = await sftp.stat(path)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return None
    return attrs.size if stat.S_ISREG(attrs.permissions or 0) else None
