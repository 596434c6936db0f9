"""A vault, opened: its snapshots, a reader, and writers."""

from collections.abc import Iterator

import msgspec
import zstandard

from memkeep import clock
from memkeep.errors import DamagedError, MemkeepError, StoreError, VaultMissingError, WrongKeyError
from memkeep.model import PartImage, PartSummary, Snapshot
from memkeep.storage.base import ObjectExistsError, ObjectMissingError, Storage
from memkeep.vault import crypto, format
from memkeep.vault.crypto import Keys, Slot
from memkeep.vault.index import Index, Segment
from memkeep.vault.reader import Reader
from memkeep.vault.writer import Writer, put_seal

_MAX_PLAIN = 1 << 30


class Vault:
    """Snapshots in a storage. `index` is read at once, manifests when asked for."""

    def __init__(self, storage: Storage, config: format.Config, keys: Keys) -> None:
        self.storage = storage
        self.config = config
        self.keys = keys
        self.damaged: list[DamagedError] = []  # what `open` and `snapshots` could not read, by object
        self.index = Index()
        self.reader = Reader(storage, keys, self.index)
        self._load_index()
        self._manifests: dict[str, Snapshot] = {}

    def writer(self, *, check: bool = False) -> Writer:
        """Return a writer for one snapshot; with `check` every blob is decoded again before it is stored."""
        return Writer(self.storage, self.keys, self.index, self.reader, check=check)

    def refresh(self) -> None:
        """Read index segments that other processes have added."""
        self._load_index()

    def snapshots(self) -> list[Snapshot]:
        """Return every readable snapshot, oldest first; unreadable manifests are noted in `damaged`."""
        found = []
        for stat in self.storage.list(format.SNAPSHOTS):
            name = stat.key.removeprefix(format.SNAPSHOTS)
            if name not in self._manifests:
                try:
                    self._manifests[name] = self._manifest(stat.key)
                except DamagedError as error:
                    self._note(error)
                    continue
            found.append(self._manifests[name])
        return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.id))

    def resolve(self, name: str) -> Snapshot:
        """Return the snapshot that `latest` or a unique prefix of an id names."""
        listed = self.snapshots()
        if name == "latest":
            if listed:
                return listed[-1]
            message = "the vault has no snapshot yet"
            raise StoreError(message, code="no_snapshot", hint="memkeep backup")
        fitting = [snapshot for snapshot in listed if snapshot.id.startswith(name.lower())]
        if len(fitting) == 1:
            return fitting[0]
        for error in self.damaged:
            if error.obj.startswith(format.SNAPSHOTS + name.lower()):
                raise error
        message = f"{name} names {len(fitting)} snapshots" if fitting else f"no snapshot is called {name}"
        raise StoreError(message, code="no_snapshot", hint="memkeep snapshots")

    def latest_of(self, system: str, path: str) -> Snapshot | None:
        """Return the newest snapshot of a store."""
        fitting = [one for one in self.snapshots() if (one.system, one.path) == (system, path)]
        return fitting[-1] if fitting else None

    def image(self, part: PartSummary) -> PartImage:
        """Return what a snapshot holds of a part."""
        if part.image is None:
            message = f"the manifest has no image of {part.name}"
            raise DamagedError(message)
        try:
            return msgspec.msgpack.decode(self.reader.read(part.image), type=PartImage)
        except msgspec.MsgspecError as error:
            message = f"the image of {part.name} is not one"
            raise DamagedError(message) from error

    def seals(self) -> dict[str, format.Seal]:
        """Return the log, by key; `DamagedError` names an entry that is not what was written."""
        found = {}
        for stat in self.storage.list(format.SEALS):
            data = self.storage.get(stat.key)
            format.check_name(stat.key, data)
            plain = self.keys.open_envelope(crypto.SEAL, data, stat.key)
            try:
                found[stat.key] = msgspec.json.decode(plain, type=format.Seal)
            except msgspec.MsgspecError as error:
                message = f"{stat.key} is not a seal"
                raise DamagedError(message, obj=stat.key) from error
        return found

    def next_seal(self) -> tuple[format.Seal, int]:
        """Return the seal that the next commit completes, and its number. Takes in snapshots that have none yet."""
        names = sorted(stat.key for stat in self.storage.list(format.SEALS))
        last = max((seal_number(name) for name in names), default=0)
        known: set[str] = set()
        try:
            for seal in self.seals().values():
                known.update(seal.snapshots, seal.forgotten)
        except DamagedError as error:
            self._note(error)  # a damaged log must not stop a backup; verify names it
            known.update(stat.key for stat in self.storage.list(format.SNAPSHOTS))
        unsealed = tuple(sorted(stat.key for stat in self.storage.list(format.SNAPSHOTS) if stat.key not in known))
        seal = format.Seal(
            created=clock.now().isoformat(),
            previous=tuple(name for name in names if seal_number(name) == last),
            snapshots=unsealed,
            keys=tuple(sorted(stat.key for stat in self.storage.list(format.KEYS))),
        )
        return seal, last + 1

    def _manifest(self, key: str) -> Snapshot:
        data = self.storage.get(key)
        format.check_name(key, data)
        plain = _inflate(self.keys.open_envelope(crypto.SNAPSHOT, data, key), key)
        try:
            snapshot = msgspec.json.decode(plain, type=Snapshot)
        except msgspec.MsgspecError as error:
            message = f"{key} is not a manifest: {error}"
            raise DamagedError(message, obj=key) from error
        # The manifest can't say its own size, but it is among what the backup added.
        added = snapshot.added_bytes + len(data)
        return msgspec.structs.replace(snapshot, id=key.removeprefix(format.SNAPSHOTS), added_bytes=added)

    def _load_index(self) -> None:
        for stat in sorted(self.storage.list(format.INDEX)):
            if stat.key in self.index.segments:
                continue
            try:
                data = self.storage.get(stat.key)
                format.check_name(stat.key, data)
                plain = _inflate(self.keys.open_envelope(crypto.INDEX, data, stat.key), stat.key)
                self.index.add(stat.key, msgspec.msgpack.decode(plain, type=Segment))
            except ObjectMissingError:
                continue  # listed and then pruned by another process
            except msgspec.MsgspecError:
                self._note(DamagedError(f"{stat.key} is not an index segment", obj=stat.key))
            except DamagedError as error:
                self._note(error)

    def _note(self, error: DamagedError) -> None:
        if all(error.obj != known.obj for known in self.damaged):
            self.damaged.append(error)


def create(storage: Storage, password: str | None) -> tuple[Vault, str | None]:
    """Make a vault in an empty storage; return it and, when encrypted, the recovery key to write down.

    Key slots first, `config` last: a crash leaves no vault rather than half of one.
    """
    if exists(storage):
        message = f"{storage.url} is a vault already"
        raise _refused(message)
    created = clock.now().isoformat()
    vault_id = crypto.new_master()[:16].hex()
    recovery = None
    master = None
    if password is not None:
        master = crypto.new_master()
        slot, recovery = crypto.recovery_slot(master, created)
        for one in (crypto.password_slot(master, password, created), slot):
            data = msgspec.json.encode(one)
            storage.put_new(format.KEYS + format.digest_of(data), [data])
    config = format.Config(id=vault_id, created=created, encrypted=master is not None)
    try:
        storage.put_new(format.CONFIG, [format.encode_config(config)])
    except ObjectExistsError as error:
        message = f"{storage.url} is a vault already"
        raise _refused(message) from error
    vault = Vault(storage, config, Keys(master, vault_id))
    put_seal(storage, vault.keys, *vault.next_seal())
    return vault, recovery


def exists(storage: Storage) -> bool:
    """Say whether a vault lies in a storage."""
    try:
        storage.stat(format.CONFIG)
    except ObjectMissingError:
        return False
    return True


def is_encrypted(storage: Storage) -> bool:
    """Say whether the vault needs a password; raises as `open_vault` does when there is none."""
    return _config(storage).encrypted


def open_vault(storage: Storage, secret: str | None) -> Vault:
    """Open a vault with its password or recovery key (None for one without encryption)."""
    config = _config(storage)
    if not config.encrypted:
        return Vault(storage, config, Keys(None, config.id))
    if secret is None:
        message = f"the vault {storage.url} is encrypted and no password was given"
        raise WrongKeyError(
            message, hint="export MEMKEEP_PASSWORD=... or add --password-file FILE", code="password_missing"
        )
    slots, damaged = read_slots(storage)
    try:
        master = crypto.find_master(slots, secret)
    except WrongKeyError:
        if damaged:
            raise damaged[0] from None
        raise
    vault = Vault(storage, config, Keys(master, config.id))
    vault.damaged.extend(damaged)
    return vault


def read_slots(storage: Storage) -> tuple[list[Slot], list[DamagedError]]:
    """Return the readable key slots, and an error for each that is not what was written."""
    slots, damaged = [], []
    for stat in sorted(storage.list(format.KEYS)):
        data = storage.get(stat.key)
        try:
            format.check_name(stat.key, data)
            slots.append(msgspec.json.decode(data, type=Slot))
        except DamagedError as error:
            damaged.append(error)
        except msgspec.MsgspecError:
            damaged.append(DamagedError(f"{stat.key} is not a key slot", obj=stat.key))
    return slots, damaged


def seal_number(key: str) -> int:
    """Return the number in a seal's key, 0 when there is none."""
    head = key.removeprefix(format.SEALS).partition("-")[0]
    return int(head) if head.isdigit() else 0


def _config(storage: Storage) -> format.Config:
    try:
        data = storage.get(format.CONFIG)
    except ObjectMissingError:
        if any(True for _ in _some(storage)):
            message = "config is missing: the vault cannot be opened until it is put back from a copy"
            raise DamagedError(message, obj=format.CONFIG, hint="cp OTHER_COPY/config VAULT/config") from None
        message = f"there is no vault at {storage.url}"
        raise VaultMissingError(message, hint=f"memkeep init --vault {storage.url}") from None
    return format.decode_config(data)


def _some(storage: Storage) -> Iterator[object]:
    for prefix in (format.SNAPSHOTS, format.INDEX, format.KEYS, format.SEALS):
        yield from storage.list(prefix)


def _inflate(data: bytes, name: str) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_PLAIN)
    except zstandard.ZstdError as error:
        message = f"{name} does not decompress"
        raise DamagedError(message, obj=name) from error


def _refused(message: str) -> MemkeepError:
    from memkeep.errors import RefusedError  # noqa: PLC0415 - only here

    return RefusedError(message, hint="memkeep status")
