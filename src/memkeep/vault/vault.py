"""A vault, opened: its snapshots, a reader, and writers."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import msgspec

from memkeep import clock
from memkeep.errors import (
    DamagedError,
    StorageError,
    StorageUnreachableError,
    StoreError,
)
from memkeep.model import BEFORE_RESTORE, PartImage, PartSummary, Recipe, Snapshot
from memkeep.storage.base import ObjectMissingError, Stat, Storage
from memkeep.vault import codec, crypto
from memkeep.vault import format as layout
from memkeep.vault.crypto import Keys
from memkeep.vault.index import Index
from memkeep.vault.lease import Held
from memkeep.vault.objects import MAX_OBJECT, decoded, get_object
from memkeep.vault.reader import Reader, pieces
from memkeep.vault.segment import Segment, read_segment
from memkeep.vault.writer import Writer, put_seal

_SEAL = msgspec.json.Decoder(layout.Seal)
_MANIFEST = msgspec.json.Decoder(Snapshot)
_MARK = msgspec.json.Decoder(layout.Mark)
_IMAGE = msgspec.msgpack.Decoder(PartImage)
_NEAR, _FAR = 2, 8  # index segments read at once: for cores, or for answers from far away


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
    def writer(self, *, check: bool = False, stored: Callable[[str], object] = lambda _: None) -> Iterator[Writer]:
        """Lend a writer for one snapshot; with `check` every blob is decoded again before it is stored.

        `stored` is told the key of every pack that is durable, on another thread.

        A lease tells prunes that what looks unused may soon be needed. Where lists may be stale it would tell nothing:
        there a prune waits for longer than any backup takes.
        """
        with ExitStack() as stack:
            held = None
            if self.storage.capabilities.fresh:
                held = stack.enter_context(self.lease("backup", exclusive=False))
                self.refresh()  # a mark that was set before the lease is seen now, one set later saw the lease
            writer = Writer(self.storage, self.keys, self.index, self.reader, check=check, held=held, stored=stored)
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
            raise StorageError(
                message, hint="memkeep status   # and remove from a machine whose settings let it", code="append_only"
            )

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
                plain = self.keys.open_envelope(crypto.MARK, get_object(self.storage, stat), stat.key)
                found[stat.key] = decoded(_MARK, plain, stat.key, stat.key)
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

    def resolve(self, name: str, *, of: Callable[[Snapshot], bool] | None = None) -> Snapshot:
        """Return the snapshot that `latest` or a unique prefix of an id names.

        Where `of` is true of any, `latest` is the latest of those: that of the store which somebody named beside it.
        What a restore has kept of the store as it was is not the latest: whoever restores again means what was good.
        Raises `DamagedError` when the latest one's manifest can't be read: an older one must not pass for it.
        """
        listed = self.snapshots()
        if name == "latest":
            listed = [one for one in listed if of is not None and of(one)] or listed
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

    def latest_of(self, system: str, path: str, user: str | None = None) -> Snapshot | None:
        """Return the newest snapshot of a store, or of what one user has in it."""
        fitting = [one for one in self.snapshots() if (one.system, one.path, one.user) == (system, path, user)]
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
            image = decoded(_IMAGE, data, f"the image of {part.name}")
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
                plain = self.keys.open_envelope(crypto.SEAL, get_object(self.storage, stat), stat.key)
                found[stat.key] = decoded(_SEAL, plain, stat.key, stat.key)
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
        data = get_object(self.storage, stat)
        plain = codec.inflate(self.keys.open_envelope(crypto.SNAPSHOT, data, key), MAX_OBJECT, key)
        snapshot = decoded(_MANIFEST, plain, key, key)
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
            plain = self.keys.open_envelope(crypto.INDEX, get_object(self.storage, stat), stat.key)
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


def seal_number(key: str) -> int:
    """Return the number in a seal's key, 0 when there is none."""
    head = key.removeprefix(layout.SEALS).partition("-")[0]
    return int(head) if head.isascii() and head.isdecimal() and len(head) <= 18 else 0  # noqa: PLR2004 - see format


def _check_recipe(recipe: Recipe, path: str) -> None:
    pieces(recipe)
    for run in recipe.runs:
        fits = run.offset >= 0 and run.count >= 0 and 0 < run.stride <= codec.MAX_BLOCK
        if not fits or run.offset + run.count * run.stride > recipe.size:
            message = f"the vectors of {path} point out of the file"
            raise DamagedError(message)
