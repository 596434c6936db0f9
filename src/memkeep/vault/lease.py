"""Leases: who is at work in a vault. They stop two from pruning at once, and tell a prune that a backup is running.

A lease is taken by writing it and then listing all leases: whoever sees another that excludes its own takes its own
away. Of two at once at least one sees the other, so this needs no conditional writes, only lists that are fresh. Where
they are not, two may hold a lease at once: what leases guard must not lose anything even so.
"""

import getpass
import os
import random
import socket
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import msgspec

from memkeep import clock
from memkeep.errors import DamagedError, StorageError, VaultLeasedError
from memkeep.storage.base import ObjectMissingError, Stat, Storage
from memkeep.vault import format as layout
from memkeep.vault.crypto import LEASE, Keys
from memkeep.vault.format import Lease
from memkeep.vault.objects import read_named

LIFETIME = timedelta(minutes=15)
_RENEW = LIFETIME / 3
_TRIES = 6
_MAX_SIZE = 1 << 16
_DECODER = msgspec.json.Decoder(Lease)


class Held:
    """A lease while its `with` block runs; `VaultLeasedError` names who holds one that excludes it.

    Who only looks, in a dry run, never enters it: then nothing is written, and `others` still tells who is at work.
    A `nameless` one tells neither host nor user: it is written before there are keys to hide them.
    """

    def __init__(self, storage: Storage, keys: Keys, what: str, *, exclusive: bool, nameless: bool = False) -> None:
        self._storage = storage
        self._keys = keys
        self._lease = Lease(
            what=what,
            exclusive=exclusive,
            host="some machine" if nameless else socket.gethostname(),
            user="someone" if nameless else _user(),
            pid=os.getpid(),
            machine=_machine(),
            since=clock.now().isoformat(timespec="seconds"),
            expires="",
        )
        self._key = ""
        self._renewed = clock.monotonic()
        self._until = clock.now()
        self._lost = False

    def __enter__(self) -> Self:
        for attempt in range(_TRIES):
            self._refuse()
            self._key = self._put()
            try:
                self._refuse()
                if self._lease.exclusive:
                    self._bury()
            except VaultLeasedError:
                self._drop(self._key)
                if attempt == _TRIES - 1:
                    raise
                clock.pause(random.uniform(0.05, 0.5) * (attempt + 1))  # noqa: S311 - only to be out of step
            except BaseException:
                self._drop(self._key)
                raise
            else:
                return self
        raise AssertionError  # pragma: no cover - the last attempt has raised

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        lost = self._lease.exclusive and isinstance(error, DamagedError) and not self.kept()
        self._drop(self._key)
        if lost:
            raise self._taken() from error  # what was not there had been moved by another

    def renew(self) -> None:
        """Put off the end of the lease, when a third of its life is over; do nothing else, or where none was taken.

        Raises `VaultLeasedError` (`lease_lost`) when an exclusive one had ended, and another has taken the vault since.
        """
        # The clock on the wall goes on while a machine sleeps, the other one does not.
        fresh = clock.monotonic() - self._renewed < _RENEW.total_seconds() and clock.now() < self._until
        if fresh or not self._key:
            return
        old, self._key = self._key, self._put()
        self._lost |= not self._drop(old)
        if self._lost and self._lease.exclusive:
            raise self._taken()

    def kept(self) -> bool:
        """Say whether the lease has been there all the time: who takes a vault alone first removes those that ended.

        So whoever has written something, and then finds its lease kept, has written it before others looked.
        """
        if not self._lost:
            try:
                self._storage.stat(self._key)
            except ObjectMissingError:
                self._lost = True
        return not self._lost

    def check(self) -> None:
        """Raise `VaultLeasedError` (`lease_lost`) unless the lease is kept."""
        if not self.kept():
            raise self._taken()

    def others(self) -> list[Lease]:
        """Return the leases of others that have not ended."""
        found = leases(self._storage, self._keys)
        return [lease for key, lease in found.items() if lease is not None and key != self._key and _lives(lease)]

    def _refuse(self) -> None:
        if self._lease.exclusive:
            for lease in self.others():
                if lease.exclusive:
                    raise _held(self._storage, lease)

    def _put(self) -> str:
        lease = msgspec.structs.replace(self._lease, expires=(clock.now() + LIFETIME).isoformat(timespec="seconds"))
        data = self._keys.envelope(LEASE, msgspec.json.encode(lease))
        key = layout.LEASES + layout.digest_of(data)
        try:
            self._storage.put_new(key, [data])
        except StorageError:
            self._drop(key)  # it may be there although nobody said so
            raise
        self._renewed, self._until = clock.monotonic(), clock.now() + _RENEW
        return key

    def _drop(self, key: str) -> bool:
        """Remove a lease; return whether it was there."""
        try:
            self._storage.delete(key)
        except ObjectMissingError:
            return False
        except StorageError:
            pass  # it ends by itself
        return True

    def _bury(self) -> None:
        """Remove leases that have ended: whose they are may only be asleep, and must find out."""
        for key, lease in leases(self._storage, self._keys).items():
            if lease is not None and not _lives(lease):
                self._drop(key)

    def _taken(self) -> VaultLeasedError:
        return VaultLeasedError(
            f"this process was at a standstill for longer than its lease on {self._storage.url} lasts, and another has"
            " taken the vault since",
            unchanged="What was done until then is whole; nothing is lost.",
            hint=f"memkeep {self._lease.what}",
            code="lease_lost",
        )


def leases(storage: Storage, keys: Keys) -> dict[str, Lease | None]:
    """Return the leases in a vault by key, ended ones too; None for what is no lease."""
    found: dict[str, Lease | None] = {}
    for stat in storage.list(layout.LEASES):
        with suppress(ObjectMissingError):
            found[stat.key] = _read(storage, keys, stat)
    return found


def sweep_leases(storage: Storage, keys: Keys) -> None:
    """Remove leases that have ended, and what stands among them and is none."""
    for key, lease in leases(storage, keys).items():
        if lease is None or not _lives(lease):
            with suppress(ObjectMissingError):
                storage.delete(key)


def _read(storage: Storage, keys: Keys, stat: Stat) -> Lease | None:
    if stat.size > _MAX_SIZE:
        return None
    try:
        data = read_named(storage, stat.key)
        return _DECODER.decode(keys.open_envelope(LEASE, data, stat.key))
    except (DamagedError, msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _lives(lease: Lease) -> bool:
    """Say whether a lease still counts: neither over, nor longer than any may be, nor of a process that is no more."""
    now = clock.now()
    try:
        expires = datetime.fromisoformat(lease.expires)
        if not now < expires <= now + 2 * LIFETIME:
            return False
    except (ValueError, TypeError):
        return False
    return lease.machine != _machine() or lease.pid == os.getpid() or _runs(lease.pid)


def _runs(pid: int) -> bool:
    """Say whether a process is more than what nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except (OSError, IndexError):
        return Path(f"/proc/{pid}").exists()


def _held(storage: Storage, lease: Lease) -> VaultLeasedError:
    return VaultLeasedError(
        f"the vault {storage.url} is in use: memkeep {lease.what} of {lease.user} on {lease.host} (process {lease.pid})"
        f" has been at work since {lease.since}; its lease ends at {lease.expires} unless it is renewed",
        hint="memkeep status   # and then the same command again",
    )


def _user() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return str(os.getuid())


def _machine() -> str:
    """Name where a pid of this process means something; nothing where there is no /proc, and then none is trusted."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"{random.SystemRandom().getrandbits(128):x}"
