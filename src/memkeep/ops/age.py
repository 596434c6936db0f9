"""Encrypt a stream with age, and decrypt one: what the `age` tool can read and write too (extra `age`)."""

import io
import os
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import msgspec

from memkeep.errors import DamagedError, StorageError, UnsupportedError, UsageError, WrongKeyError, quoted

MAX_IN_MEMORY = 1 << 30  # bytes of a file behind a passphrase, which the library takes only whole
_PIECE = 1 << 16
_AGAIN = "copy it again from where it was made"
_TOO_COSTLY = "work parameter"  # how the library's refusal is told from a wrong passphrase: it has no other sign
_SHOWN = 100  # characters of a key that tell what it is


class Output(Protocol):
    """What can be written to."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Write some of it; return how many bytes."""
        ...


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """For whom to encrypt: public keys (`age1...`, `ssh-ed25519 ...`, `ssh-rsa ...`), or all who know a passphrase."""

    recipients: tuple[str, ...] = ()
    passphrase: str | None = None

    def __bool__(self) -> bool:
        """Whether to encrypt at all."""
        return bool(self.recipients) or self.passphrase is not None


class Unlock(msgspec.Struct, frozen=True, kw_only=True):
    """What may decrypt: files of identities (age's or an SSH key), and a passphrase."""

    identities: tuple[Path, ...] = ()
    passphrase: str | None = None


def write_encrypted(pieces: Iterable[bytes], out: Output, lock: Lock) -> None:
    """Encrypt pieces into a file. Raises `UsageError` for what is no public key, and what `pieces` and `out` raise."""
    age = _age()
    if lock.passphrase is not None:
        if lock.recipients:
            raise UsageError("age encrypts for recipients or with a passphrase, not both", hint="memkeep pack --help")
        whole = _whole(pieces, "use --age-recipient: memkeep pack SNAPSHOT -o FILE --age-recipient age1...")
        for at in range(0, len(sealed := age.passphrase.encrypt(whole, lock.passphrase)), _PIECE):
            _write_all(out, sealed[at : at + _PIECE])
        return
    source, sink = _Source(pieces), _Sink(out)
    try:
        age.encrypt_io(source, sink, [_recipient(age, text) for text in lock.recipients])
    except (age.EncryptError, OSError):
        _raise_first(source, sink)
        raise


@contextmanager
def decrypted(file: BinaryIO, name: str, unlock: Unlock) -> Iterator[BinaryIO]:
    """Give what an encrypted file holds, as it is decrypted. Raises `WrongKeyError`, `DamagedError`."""
    age = _age()
    if unlock.passphrase is not None:
        sealed = _whole(iter(lambda: file.read(_PIECE), b""), "decrypt it first: age -d -o FILE.tar.zst FILE")
        try:
            yield io.BytesIO(age.passphrase.decrypt(sealed, unlock.passphrase))
        except age.DecryptError as error:
            if _TOO_COSTLY in str(error):
                raise _too_costly(name) from error
            raise _wrong(name, f"the passphrase does not open it, or it is damaged ({error})") from error
        return
    if not unlock.identities:
        raise WrongKeyError(
            f"{name} is encrypted with age, and no identity was given",
            hint=f"memkeep restore {quoted(name)} --to DIR --age-identity FILE",
            code="password_missing",
        )
    identities = [one for path in unlock.identities for one in _identities(age, path)]

    def explain(error: BaseException) -> BaseException:
        if isinstance(error, age.DecryptError):
            return _wrong(name, f"none of the identities opens it ({error})")
        if isinstance(error, OSError) and error.errno is None:
            return DamagedError(f"{name} is not what age wrote: {error}", obj=name, hint=_AGAIN)
        return error

    with _Pipe(lambda sink: age.decrypt_io(file, sink, identities), explain) as pipe:
        yield io.BufferedReader(pipe)


class _Pipe(io.RawIOBase):
    """Reads what a thread writes; at its end raises what went wrong there."""

    def __init__(self, work: Callable[[Any], None], explain: Callable[[BaseException], BaseException]) -> None:
        super().__init__()
        self._work = work
        self._explain = explain
        self._failed: BaseException | None = None
        self._from, self._to = os.pipe()
        self._thread = threading.Thread(target=self._run, name="memkeep-age")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._from)  # a thread that still writes is told that nobody reads
        self._thread.join()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.read(self._from, len(buffer))
        if not data and self._failed is not None:
            raise self._failed
        buffer[: len(data)] = data
        return len(data)

    def _run(self) -> None:
        try:
            with open(self._to, "wb", buffering=0) as sink:  # noqa: PTH123 - a descriptor
                try:
                    self._work(sink)
                except BaseException as error:  # noqa: BLE001 - raised where it is read
                    self._failed = self._explain(error)
        except OSError as error:
            self._failed = self._failed or error


class _Source:
    """Pieces as a file to read; remembers what they raised, which the library would only tell as a text."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""
        self.failed: BaseException | None = None

    def read(self, size: int) -> bytes:
        """Return at most so many bytes; none at the end."""
        try:
            while not self._left:
                self._left = next(self._pieces)
        except StopIteration:
            return b""
        except BaseException as error:
            self.failed = error
            raise
        data, self._left = self._left[:size], self._left[size:]
        return data


class _Sink:
    """A file to write to; remembers what it raised."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self.failed: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Write all of it."""
        try:
            return _write_all(self._out, data)
        except BaseException as error:
            self.failed = error
            raise

    def flush(self) -> None:
        """Leave that to who lent the file."""


def _raise_first(source: _Source, sink: _Sink) -> None:
    for failed in (source.failed, sink.failed):
        if failed is not None:
            raise failed


def _write_all(out: Output, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]
    return len(data)


def _whole(pieces: Iterable[bytes], instead: str) -> bytes:
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if len(whole) > MAX_IN_MEMORY:
            raise StorageError(
                f"a file behind a passphrase is held in memory, and this one has more than {MAX_IN_MEMORY:,} bytes",
                hint=instead,
                code="too_large",
            )
    return bytes(whole)


def _recipient(age: Any, text: str) -> Any:
    kind = age.ssh.Recipient if text.startswith("ssh-") else age.x25519.Recipient
    try:
        return kind.from_str(text)
    except age.RecipientError as error:
        message = f"{text[:_SHOWN]!r} is no public key of age or SSH: {error}"
        raise UsageError(message, hint="age-keygen -y IDENTITY-FILE") from error


def _identities(age: Any, path: Path) -> list[Any]:
    try:
        data = path.expanduser().read_bytes()
        if data.startswith(b"-----BEGIN"):
            return [age.ssh.Identity.from_buffer(data)]
        lines = [line.strip() for line in data.decode().splitlines()]
        found = [age.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError, age.IdentityError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds none that can be read"
        raise WrongKeyError(
            f"the identity file {path} cannot be used: {reason}", hint=f"ls -l {quoted(path)}"
        ) from error
    if not found:
        raise WrongKeyError(f"the identity file {path} holds no identity", hint=f"ls -l {quoted(path)}")
    return found


def _wrong(name: str, what: str) -> WrongKeyError:
    return WrongKeyError(f"{name}: {what}", hint=f"memkeep restore {quoted(name)} --to DIR --age-identity FILE")


def _too_costly(name: str) -> UnsupportedError:
    """Return the error that a passphrase was not even tried: how costly that is was fitted to a faster machine."""
    plain = name.removesuffix(".age") if name.endswith(".age") else f"{name}.tar.zst"
    first, then = (shlex.quote(one) for one in (name, plain))
    return UnsupportedError(
        f"{name}: to try a passphrase takes more work than age's library does on this machine; the file was made on a"
        " faster one",
        hint=f"age -d -o {quoted(then)} {quoted(first)} && memkeep restore {quoted(then)} --to DIR   # Debian's `age`",
    )


def _age() -> Any:
    with suppress(ImportError):
        import pyrage

        return pyrage
    raise UnsupportedError("age needs an extra that is not installed", hint="pip install 'memkeep[age]'")
