"""A vault, opened: its snapshots, a reader, and writers."""

import shlex
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

import msgspec

from memkeep import clock
from memkeep.errors import (
    DamagedError,
    RefusedError,
    StorageError,
    StorageUnreachableError,
    StoreError,
    UnsupportedError,
    VaultMissingError,
    WrongKeyError,
)
from memkeep.model import BEFORE_RESTORE, PartImage, PartSummary, Recipe, Snapshot
from memkeep.storage.base import ObjectExistsError, ObjectMissingError, Stat, Storage
from memkeep.storage.cache import origin
from memkeep.vault import codec, crypto
from memkeep.vault import format as layout
from memkeep.vault.crypto import Keys, Slot
from memkeep.vault.index import Index
from memkeep.vault.lease import Held
from memkeep.vault.objects import read_named
from memkeep.vault.reader import Reader, pieces
from memkeep.vault.segment import Segment, read_segment
from memkeep.vault.writer import Writer, put_seal

MAX_OBJECT = 1 << 28  # bytes of an object other than a pack, as stored and decompressed
_SLOT = msgspec.json.Decoder(Slot)
_SEAL = msgspec.json.Decoder(layout.Seal)
_MANIFEST = msgspec.json.Decoder(Snapshot)
_MARK = msgspec.json.Decoder(layout.Mark)
_IMAGE = msgspec.msgpack.Decoder(PartImage)
_NEAR, _FAR = 2, 8  # index segments read at once: for cores, or for answers from far away
T = TypeVar("T")


class Vault:
    """Snapshots in a storage. `index` is read at once, manifests when asked for."""

    def __init__(self, storage: Storage, config: layout.Config, keys: Keys) -> None:
        self.storage = storage
        self.config = config
        self.keys = keys
        self.damaged: list[DamagedError] = []  # what `open` and `snapshots` could not read, by object
        self.index = Index()
        self.reader = Reader(storage, keys, self.index, missing=self.refresh)
        self._manifests: dict[str, Snapshot] = {}
        self.refresh()

    @contextmanager
    def writer(self, *, check: bool = False) -> Iterator[Writer]:
        """Lend a writer for one snapshot; with `check` every blob is decoded again before it is stored.

        A lease tells prunes that what looks unused may soon be needed. Where lists may be stale it would tell nothing:
        there a prune waits for longer than any backup takes.
        """
        with ExitStack() as stack:
            held = None
            if self.storage.capabilities.fresh:
                held = stack.enter_context(self.lease("backup", exclusive=False))
                self.refresh()  # a mark that was set before the lease is seen now, one set later saw the lease
            writer = Writer(self.storage, self.keys, self.index, self.reader, check=check, held=held)
            yield stack.enter_context(writer)

    def refresh(self) -> set[str]:
        """Read how other processes have changed the index; distrust the packs that a prune has marked, return all.

        Marks come first: of a prune that ends in between, either they are seen, or segments without what it removed.
        """
        marked = {key for mark in self.marks().values() for key in mark.objects}
        self._load_index()
        for key in marked:
            self.index.distrust(key)
        return marked

    def index_without(self, going: Container[str]) -> Index:
        """Return the index as it is going to be without some segments, read anew."""
        index = Index()
        self._add_segments(index, going)
        return index

    def lease(self, what: str, *, exclusive: bool) -> Held:
        """Return a context that holds a lease; entering it raises `VaultLeasedError` when another excludes it."""
        return Held(self.storage, self.keys, what, exclusive=exclusive)

    def forget(self, names: Sequence[str]) -> None:
        """Remove snapshots by their whole ids, damaged ones too; a crash leaves each whole or gone.

        Raises `VaultLeasedError` while another process removes things. The space is given back by a prune.
        """
        keys = [layout.SNAPSHOTS + name for name in names]
        with self.lease("forget", exclusive=True):
            refused = self.remove(keys)
        for name in names:
            self._manifests.pop(name, None)
        self.damaged = [error for error in self.damaged if error.obj not in keys]
        if refused:
            raise refused[0]

    def check_removes(self) -> None:
        """Raise `StorageError` (`append_only`) where it is known that nothing may be removed: before a seal says so."""
        if not self.storage.capabilities.removes:
            message = f"nothing is removed from {self.storage.url}: this machine's settings say append_only for it"
            raise StorageError(message, hint="do it on a machine whose settings let it remove", code="append_only")

    def remove(self, keys: Sequence[str]) -> list[StorageError]:
        """Remove objects: first a seal says that they may be missing, then they go. Hold a lease.

        Returns an error for each object that the storage does not give up; raises what befalls the seal.
        """
        if keys:
            self.check_removes()
        seal, number = self.next_seal()
        put_seal(self.storage, self.keys, msgspec.structs.replace(seal, forgotten=tuple(keys)), number)
        return remove_all(self.storage, keys)

    def gone(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that are not there; each is asked for, since a list may not show yet what was just put."""
        missing = set()
        for key in keys:
            try:
                self.storage.stat(key)
            except ObjectMissingError:
                missing.add(key)
        return missing

    def marks(self) -> dict[str, layout.Mark]:
        """Return what prunes have marked, by key; what is no mark is left out: it only costs space."""
        found = {}
        for stat in self.storage.list(layout.MARKS):
            with suppress(ObjectMissingError, DamagedError):
                plain = self.keys.open_envelope(crypto.MARK, _get(self.storage, stat), stat.key)
                found[stat.key] = _decoded(_MARK, plain, stat.key, stat.key)
        return found

    def snapshots(self) -> list[Snapshot]:
        """Return every readable snapshot, oldest first; unreadable manifests are noted in `damaged`."""
        found = []
        for stat in self.storage.list(layout.SNAPSHOTS):
            name = stat.key.removeprefix(layout.SNAPSHOTS)
            if name not in self._manifests:
                try:
                    self._manifests[name] = self._manifest(stat)
                except ObjectMissingError:
                    continue  # listed and then removed by another process
                except DamagedError as error:
                    self._note(error)
                    continue
            found.append(self._manifests[name])
        return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.id))

    def resolve(self, name: str) -> Snapshot:
        """Return the snapshot that `latest` or a unique prefix of an id names.

        What a restore has kept of the store as it was is not the latest: whoever restores again means what was good.
        Raises `DamagedError` when the latest one's manifest can't be read: an older one must not pass for it.
        """
        listed = self.snapshots()
        if name == "latest":
            latest = next(
                (one for one in reversed(listed) if one.tag != BEFORE_RESTORE), listed[-1] if listed else None
            )
            self._refuse_older(latest)
            if latest is not None:
                return latest
            message = "the vault has no snapshot yet"
            raise StoreError(message, code="no_snapshot", hint="memkeep backup")
        fitting = [snapshot for snapshot in listed if snapshot.id.startswith(name.lower())]
        if len(fitting) == 1:
            return fitting[0]
        for error in self.damaged:
            if error.obj.startswith(layout.SNAPSHOTS + name.lower()):
                raise error
        message = f"{name} names {len(fitting)} snapshots" if fitting else f"no snapshot is called {name}"
        raise StoreError(message, code="no_snapshot", hint="memkeep snapshots")

    def _refuse_older(self, than: Snapshot | None) -> None:
        """Raise `DamagedError` when a manifest that can't be read may be newer than a snapshot, by the log."""
        damaged = [error for error in self.damaged if error.obj.startswith(layout.SNAPSHOTS)]
        if not damaged:
            return
        when: dict[str, int] = {}  # number of the first seal that names a manifest
        for key, seal in self.log()[0].items():
            for name in seal.snapshots:
                when[name] = min(when.get(name, seal_number(key)), seal_number(key))
        latest = when.get(layout.SNAPSHOTS + than.id, 0) if than is not None else 0
        for error in damaged:
            if error.obj not in when or when[error.obj] >= latest:
                message = f"{error.message}; it may be the latest snapshot"
                raise DamagedError(message, obj=error.obj, hint="memkeep snapshots   (and name the one that you want)")

    def latest_of(self, system: str, path: str) -> Snapshot | None:
        """Return the newest snapshot of a store."""
        fitting = [one for one in self.snapshots() if (one.system, one.path) == (system, path)]
        return fitting[-1] if fitting else None

    def image(self, part: PartSummary) -> PartImage:
        """Return what a snapshot holds of a part; `DamagedError` when it is not what was written or contradicts itself.

        Recipes and runs of the image have been checked to add up: nothing in it points out of its chunks or streams.
        """
        if part.image is None:
            message = f"the manifest has no image of {part.name}"
            raise DamagedError(message, obj=self._manifest_of(part))
        try:
            data = self.reader.read(part.image)
            image = _decoded(_IMAGE, data, f"the image of {part.name}")
            for stored in image.entries:
                if stored.recipe is not None:
                    _check_recipe(stored.recipe, stored.entry.path)
        except DamagedError as error:
            error.obj = error.obj or self._manifest_of(part)
            raise
        return image

    def seals(self) -> dict[str, layout.Seal]:
        """Return the log, by key; `DamagedError` names an entry that is not what was written."""
        found, damaged = self.log()
        if damaged:
            raise damaged[0]
        return found

    def log(self) -> tuple[dict[str, layout.Seal], list[DamagedError]]:
        """Return the readable entries of the log, by key, and an error for each other.

        An entry that another forgets says nothing any more, although it may still be there.
        """
        found, damaged = {}, []
        for stat in self.storage.list(layout.SEALS):
            try:
                plain = self.keys.open_envelope(crypto.SEAL, _get(self.storage, stat), stat.key)
                found[stat.key] = _decoded(_SEAL, plain, stat.key, stat.key)
            except ObjectMissingError:
                continue  # listed and then removed by another process
            except DamagedError as error:
                damaged.append(error)
        over = {key for seal in found.values() for key in seal.forgotten}
        return {key: seal for key, seal in found.items() if key not in over}, damaged

    def next_seal(self) -> tuple[layout.Seal, int]:
        """Return the seal that the next commit completes, and its number.

        It takes in what has none yet: snapshots and objects of a backup that was interrupted.
        """
        seals, damaged = self.log()
        for error in damaged:
            self._note(error)  # a damaged log must not stop a backup; verify names it
        names = sorted([*seals, *(error.obj for error in damaged)])
        last = max((seal_number(name) for name in names), default=0)
        known = {key for seal in seals.values() for key in (*seal.snapshots, *seal.forgotten)}
        unsealed = tuple(sorted(stat.key for stat in self.storage.list(layout.SNAPSHOTS) if stat.key not in known))
        listed = {key for seal in seals.values() for key in (*seal.objects, *seal.forgotten)}
        objects = dict.fromkeys(
            key for segment, packs in self.index.segments.items() for key in (*packs, segment) if key not in listed
        )
        seal = layout.Seal(
            created=clock.now().isoformat(),
            previous=tuple(name for name in names if seal_number(name) == last),
            snapshots=unsealed,
            objects=tuple(objects),
            keys=tuple(sorted(stat.key for stat in self.storage.list(layout.KEYS))),
        )
        return seal, last + 1

    def _manifest(self, stat: Stat) -> Snapshot:
        key = stat.key
        data = _get(self.storage, stat)
        plain = codec.inflate(self.keys.open_envelope(crypto.SNAPSHOT, data, key), MAX_OBJECT, key)
        snapshot = _decoded(_MANIFEST, plain, key, key)
        # The manifest can't say its own size, but it is among what the backup added.
        added = snapshot.added_bytes + len(data)
        return msgspec.structs.replace(snapshot, id=key.removeprefix(layout.SNAPSHOTS), added_bytes=added)

    def _manifest_of(self, part: PartSummary) -> str:
        """Return the key of a manifest that names a part's image."""
        return next((layout.SNAPSHOTS + name for name, one in self._manifests.items() if part in one.parts), "")

    def _load_index(self) -> None:
        """Read the segments that are not in the index; where some have gone since, with all that a prune removed, all.

        A list that may be stale is no proof that one has gone.
        """
        there = self._add_segments(self.index, self.index.segments)
        if self.storage.capabilities.fresh and self.index.segments.keys() - there:
            self.index.become(self.index_without(()))

    def _add_segments(self, index: Index, but: Container[str]) -> set[str]:
        """Add what segments there are but some, several at a time: hashing and decrypting run side by side.

        Returns the keys of all that there are. Where one goes after it was listed, others that replace it are there.
        """
        while True:
            listed = sorted(self.storage.list(layout.INDEX))
            new = [stat for stat in listed if stat.key not in but and stat.key not in index.segments]
            gone = False
            with ThreadPoolExecutor(_NEAR if self.storage.capabilities.near else _FAR, "memkeep-index") as pool:
                for stat, got in zip(new, pool.map(self._segment, new), strict=True):
                    if isinstance(got, DamagedError):
                        self._note(got)
                    elif got is not None:
                        index.add(stat.key, got)
                    else:
                        gone = True
            if not gone or not self.storage.capabilities.fresh:
                return {stat.key for stat in listed}

    def _segment(self, stat: Stat) -> Segment | DamagedError | None:
        try:
            plain = self.keys.open_envelope(crypto.INDEX, _get(self.storage, stat), stat.key)
            return read_segment(stat.key, plain)
        except ObjectMissingError:
            return None  # listed and then pruned by another process
        except DamagedError as error:
            return error

    def _note(self, error: DamagedError) -> None:
        if all(error.obj != known.obj for known in self.damaged):
            self.damaged.append(error)


def remove_all(storage: Storage, keys: Iterable[str]) -> list[StorageError]:
    """Remove objects, also those that are gone already; return an error for each that the storage does not give up."""
    refused = []
    for key in keys:
        try:
            storage.delete(key)
        except ObjectMissingError:
            continue
        except StorageUnreachableError:
            raise
        except StorageError as error:
            refused.append(error)
    return refused


def create(storage: Storage, password: str | None) -> tuple[Vault, str | None]:
    """Make a vault in an empty storage; return it and, when encrypted, the recovery key to write down.

    Key slots and the first seal come first, `config` last: a crash leaves no vault rather than half of one.
    """
    with Held(storage, Keys(None, ""), "init", exclusive=True, nameless=password is not None):
        return _create(storage, password)


def _create(storage: Storage, password: str | None) -> tuple[Vault, str | None]:
    if exists(storage):
        raise _taken(storage)
    if _holds_backups(storage):
        raise _config_missing()
    for leftover in [*storage.list(layout.KEYS), *storage.list(layout.SEALS)]:  # of an `init` that was interrupted
        storage.delete(leftover.key)
    created = clock.now().isoformat()
    vault_id = crypto.new_master()[:16].hex()
    recovery = None
    master = None
    if password is not None:
        master = crypto.new_master()
        slot, recovery = crypto.recovery_slot(master, vault_id, created)
        put_slot(storage, crypto.password_slot(master, password, vault_id, created), password, master, vault_id)
        put_slot(storage, slot, recovery, master, vault_id)
    data = layout.encode_config(layout.Config(id=vault_id, created=created, encrypted=master is not None))
    config = layout.decode_config(data)
    vault = Vault(storage, config, Keys(master, vault_id))
    put_seal(storage, vault.keys, *vault.next_seal())
    try:
        storage.put_new(layout.CONFIG, [data])
    except ObjectExistsError as error:
        raise _taken(storage) from error
    if storage.get(layout.CONFIG) != data:
        storage.delete(layout.CONFIG)  # or the next `init` would take it for a vault
        raise DamagedError("the storage gives back another config than was written", obj=layout.CONFIG)
    return vault, recovery


def put_slot(storage: Storage, slot: Slot, secret: str, master: bytes, vault_id: str) -> str:
    """Store a key slot, and prove by what was stored that the secret opens it; return its key."""
    data = msgspec.json.encode(slot)
    key = layout.KEYS + layout.digest_of(data)
    storage.put_new(key, [data])
    stored = read_slot(origin(storage), Stat(key, len(data)))
    if crypto.unwrap(stored, secret, vault_id) != master:
        raise DamagedError(f"{key} does not open the vault: it is not what was written", obj=key)
    return key


def exists(storage: Storage) -> bool:
    """Say whether a vault lies in a storage."""
    try:
        storage.stat(layout.CONFIG)
    except ObjectMissingError:
        return False
    return True


def open_vault(storage: Storage, secret: str | Callable[[], str | None] | None) -> Vault:
    """Open a vault with its password or recovery key; a function that gives it is called only if it is encrypted."""
    config = _config(storage)
    if not config.encrypted:
        if any(True for _ in storage.list(layout.KEYS)):
            # Or else who can write to the storage could have the next backup written in the clear.
            message = "config says that the vault is not encrypted, but it has key slots"
            raise DamagedError(message, obj=layout.CONFIG, hint="cp OTHER_COPY/config VAULT/config")
        return Vault(storage, config, Keys(None, config.id))
    if callable(secret):
        secret = secret()
    if secret is None:
        message = f"the vault {storage.url} is encrypted and no password was given"
        raise WrongKeyError(
            message, hint="export MEMKEEP_PASSWORD=... or add --password-file FILE", code="password_missing"
        )
    slots, damaged = read_slots(storage)
    if not slots and not damaged and not any(True for _ in storage.list(layout.KEYS)):
        message = "all key slots were removed: nothing opens the vault until one is put back from a copy"
        raise DamagedError(message, obj=layout.KEYS, hint="cp OTHER_COPY/keys/* VAULT/keys/")
    try:
        master = crypto.find_master(slots, secret, config.id, storage.url)
    except WrongKeyError:
        if damaged:
            raise damaged[0] from None
        raise
    vault = Vault(storage, config, Keys(master, config.id))
    vault.damaged.extend(damaged)
    return vault


def read_slots(storage: Storage) -> tuple[list[Slot], list[DamagedError]]:
    """Return the readable key slots, and an error for each that is not what was written.

    Slots of a newer kind are passed over: an older one may do.
    """
    slots, damaged = [], []
    for stat in sorted(storage.list(layout.KEYS)):
        with suppress(UnsupportedError, ObjectMissingError):  # the latter: listed and then revoked
            try:
                slots.append(read_slot(storage, stat))
            except DamagedError as error:
                damaged.append(error)
    return slots, damaged


def read_slot(storage: Storage, stat: Stat) -> Slot:
    """Return a key slot that can be tried; raises `DamagedError`, or `UnsupportedError` for one of a newer kind."""
    data = _get(storage, stat)
    return crypto.check_slot(_decoded(_SLOT, data, stat.key, stat.key), stat.key)


def seal_number(key: str) -> int:
    """Return the number in a seal's key, 0 when there is none."""
    head = key.removeprefix(layout.SEALS).partition("-")[0]
    return int(head) if head.isascii() and head.isdecimal() and len(head) <= 18 else 0  # noqa: PLR2004 - see format


def _config(storage: Storage) -> layout.Config:
    try:
        data = storage.get(layout.CONFIG)
    except ObjectMissingError:
        if _holds_backups(storage):
            raise _config_missing() from None
        message = f"there is no vault at {storage.url}"
        raise VaultMissingError(message, hint=f"memkeep init --vault {shlex.quote(storage.url)}") from None
    return layout.decode_config(data)


def _holds_backups(storage: Storage) -> bool:
    return any(True for prefix in (layout.SNAPSHOTS, layout.INDEX, layout.DATA) for _ in storage.list(prefix))


def _config_missing() -> DamagedError:
    message = "config is missing: the vault cannot be opened until it is put back from a copy"
    return DamagedError(message, obj=layout.CONFIG, hint="cp OTHER_COPY/config VAULT/config")


def _get(storage: Storage, stat: Stat) -> bytes:
    """Return an object that is read whole, checked against its name."""
    if stat.size > MAX_OBJECT:
        message = f"{stat.key} has {stat.size} bytes: it is not what was written"
        raise DamagedError(message, obj=stat.key)
    return read_named(storage, stat.key)


def _decoded(
    decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], data: bytes | memoryview, what: str, obj: str = ""
) -> T:
    """Return what a decoder gives; `DamagedError` for whatever it raises over bytes that are not of its type."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        message = f"{what} can't be read: {error}"
        raise DamagedError(message, obj=obj) from error


def _check_recipe(recipe: Recipe, path: str) -> None:
    pieces(recipe)
    for run in recipe.runs:
        fits = run.offset >= 0 and run.count >= 0 and 0 < run.stride <= codec.MAX_BLOCK
        if not fits or run.offset + run.count * run.stride > recipe.size:
            message = f"the vectors of {path} point out of the file"
            raise DamagedError(message)


def _taken(storage: Storage) -> RefusedError:
    return RefusedError(f"{storage.url} is a vault already", hint="memkeep status")
