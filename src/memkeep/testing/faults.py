"""Break a storage on purpose: fail or kill at the n-th call of a kind, and damage what is stored.

Used to try every way in which a vault's disk can say no, at every place where it can.
"""

import errno
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NoReturn

from memkeep.errors import StorageError, StorageUnreachableError
from memkeep.model import Value
from memkeep.storage.base import Stat, Storage

Call = Literal["put_new", "get", "get_range", "stat", "list", "delete"]
Kind = Literal[
    "refuse",
    "full",
    "io",
    "denied",
    "partial",
    "corrupt",
    "timeout",
    "lost",
    "stale",
    "kill_before",
    "kill_during",
    "kill_after",
]
_ERRNO = {"full": errno.ENOSPC, "partial": errno.ENOSPC, "io": errno.EIO, "denied": errno.EACCES}


class Fault(Value):
    """What goes wrong at one call: the `number`th of its kind (from 1) among those whose key begins with `prefix`.

    `partial` gives half of the bytes to the storage beneath and then fails; `corrupt` stores, or where it reads gives,
    other bytes and says nothing; `kill_...` ends the process there, as a power cut would. `timeout` gives no answer,
    and nothing was done; with `lost` it was done, or a list had begun, and the answer broke off. `stale` is a list that
    does not show yet the last `behind` changes that were made under its prefix through this wrapper. A `lasting` fault
    hits every later call too: a disk that is full stays full.
    """

    call: Call
    number: int
    kind: Kind
    prefix: str = ""
    lasting: bool = False
    behind: int = 1


class FaultyStorage:
    """A storage that does what another does, except where a script says otherwise."""

    def __init__(self, beneath: Storage, *faults: Fault) -> None:
        self.beneath = beneath
        self.url = beneath.url
        self.folder = beneath.folder
        stale = any(fault.kind == "stale" for fault in faults)
        self.capabilities = beneath.capabilities._replace(fresh=False) if stale else beneath.capabilities
        self.calls: list[tuple[Call, str]] = []  # all that were made, in order
        self._faults = faults
        self._changes: list[tuple[Call, Stat]] = []  # puts and deletes that were done, in order
        self._lock = threading.Lock()

    def put_new(self, key: str, data: Iterable[bytes | memoryview]) -> int:
        """Create an object, or fail before, in the middle or after."""
        fault = self._note("put_new", key)
        if fault is None or fault.kind in {"lost", "kill_after"}:
            size = self.beneath.put_new(key, data)
            self._changes.append(("put_new", Stat(key, size)))
            if fault is not None:
                raise _failure(fault, key)
            return size
        if fault.kind == "corrupt":
            return self.beneath.put_new(key, [_corrupted(b"".join(data))])
        if fault.kind in {"partial", "kill_during"}:
            return self.beneath.put_new(key, _half(data, fault, key))
        raise _failure(fault, key)

    def get(self, key: str) -> bytes:
        """Return an object, or other bytes, or fail."""
        fault = self._meet("get", key)
        data = self.beneath.get(key)
        return _corrupted(data) if fault else data

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return a piece of an object, or other bytes, or fail."""
        fault = self._meet("get_range", key)
        data = self.beneath.get_range(key, offset, length)
        return _corrupted(data) if fault else data

    def stat(self, key: str) -> Stat:
        """Say how large an object is, or fail."""
        self._meet("stat", key)
        return self.beneath.stat(key)

    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield objects by prefix: all, half of them, or those of a while ago; or fail."""
        fault = self._note("list", prefix)
        if fault is None:
            return self.beneath.list(prefix)
        if fault.kind == "lost":
            return self._half_of(prefix, fault)
        if fault.kind == "stale":
            return iter(self._as_it_was(prefix, fault.behind))
        raise _failure(fault, prefix)

    def delete(self, key: str) -> None:
        """Remove an object, or fail before or after."""
        fault = self._note("delete", key)
        if fault is not None and fault.kind not in {"lost", "kill_after"}:
            raise _failure(fault, key)
        stat = self.beneath.stat(key)
        self.beneath.delete(key)
        self._changes.append(("delete", stat))
        if fault is not None:
            raise _failure(fault, key)

    def _half_of(self, prefix: str, fault: Fault) -> Iterator[Stat]:
        found = sorted(self.beneath.list(prefix))
        yield from found[: len(found) // 2]
        raise _failure(fault, prefix)

    def _as_it_was(self, prefix: str, behind: int) -> tuple[Stat, ...]:
        """Return what a list gave so many changes ago."""
        found = {stat.key: stat for stat in self.beneath.list(prefix)}
        changes = [change for change in self._changes if change[1].key.startswith(prefix)]
        for call, stat in reversed(changes[-behind:]):
            if call == "put_new":
                found.pop(stat.key, None)
            else:
                found[stat.key] = stat
        return tuple(found.values())

    def _meet(self, call: Call, key: str) -> Fault | None:
        """Fail if a fault says so; return one that only spoils the answer."""
        fault = self._note(call, key)
        if fault is not None and fault.kind != "corrupt":
            raise _failure(fault, key)
        return fault

    def _note(self, call: Call, key: str) -> Fault | None:
        with self._lock:
            self.calls.append((call, key))
            for fault in self._faults:
                if fault.call == call and key.startswith(fault.prefix):
                    number = sum(one == call and other.startswith(fault.prefix) for one, other in self.calls)
                    if number == fault.number or (fault.lasting and number > fault.number):
                        return fault
        return None


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file; a negative offset counts from its end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    """Cut a file off; a negative size takes away from its end."""
    data = path.read_bytes()
    path.write_bytes(data[:size])


def swap(one: Path, other: Path) -> None:
    """Let two files change places."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _corrupted(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


def _half(data: Iterable[bytes | memoryview], fault: Fault, key: str) -> Iterator[bytes]:
    whole = b"".join(data)
    yield whole[: len(whole) // 2]
    raise _failure(fault, key)


def _failure(fault: Fault, key: str) -> StorageError:
    if fault.kind.startswith("kill"):
        _die()
    if fault.kind == "refuse":
        return StorageError(f"{key} was refused, as the script says")
    if fault.kind in {"timeout", "lost"}:
        return StorageUnreachableError(f"could not reach {key}: the script gives no answer")
    number = _ERRNO[fault.kind]
    message = f"could not reach {key}: {os.strerror(number)}"
    return StorageError(message, code="disk_full" if number == errno.ENOSPC else "storage")


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError  # pragma: no cover - nobody is here any more
