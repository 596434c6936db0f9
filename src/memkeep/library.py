"""memkeep as a library: an opened vault with the verbs as methods. The command line calls the same operations.

```python
import memkeep

vault = memkeep.open_vault("~/vault", password="...")
report = vault.backup("~/.openclaw").snapshots[0]
vault.verify(report.id, rung=memkeep.Rung.EQUIVALENT)
vault.restore(report.id, to="~/restored")
vault.diff(report.id, "~/.openclaw/memory").changed
```
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from os import PathLike, fspath
from pathlib import Path

from memkeep.config import Config, Retention, load, vault_settings
from memkeep.engines.merging import Conflict
from memkeep.events import SILENT, Events
from memkeep.model import Rung, Store
from memkeep.ops.apply import ApplyResult
from memkeep.ops.audit import AuditResult
from memkeep.ops.backup import BackupResult, Secrets
from memkeep.ops.copy import CopyResult
from memkeep.ops.diff import DiffResult
from memkeep.ops.embed import EmbedResult
from memkeep.ops.embedder import Embedder
from memkeep.ops.estimate import BackupEstimate, RestoreEstimate
from memkeep.ops.export import ExportResult
from memkeep.ops.exported import VerifiedExport
from memkeep.ops.forget import ForgetResult
from memkeep.ops.history import HistoryResult
from memkeep.ops.imports import ImportResult
from memkeep.ops.migrate import MigrateResult
from memkeep.ops.open import Ask, InitResult
from memkeep.ops.pack import PackResult
from memkeep.ops.prune import PruneResult
from memkeep.ops.repair import RepairResult
from memkeep.ops.restore import RestoreResult
from memkeep.ops.search import SearchResult
from memkeep.ops.snapshots import ShowResult, SnapshotList
from memkeep.ops.status import StatusResult
from memkeep.ops.vectors import VectorsReport
from memkeep.ops.verify import VerifyReport
from memkeep.vault.vault import Vault

Place = str | PathLike[str]


class OpenVault:
    """A vault and the verbs on it. Every method raises `MemkeepError` or one of its kinds, and nothing else."""

    def __init__(self, vault: Vault, config: Config) -> None:
        self._vault = vault
        self._config = config

    @property
    def id(self) -> str:
        """The vault's own name, 32 hex digits."""
        return self._vault.config.id

    @property
    def encrypted(self) -> bool:
        """Whether it is encrypted."""
        return self._vault.config.encrypted

    def backup(
        self,
        *paths: Place,
        user: str | None = None,
        tag: str | None = None,
        label: str | None = None,
        secrets: Secrets = "auto",
        dry_run: bool = False,
        verify: bool = True,
        events: Events = SILENT,
    ) -> BackupResult:
        """Take a snapshot of every store at the paths, or of all that are found when none is given.

        With `user`, of what is of one user in them.
        """
        from memkeep.ops.backup import backup

        return backup(
            self._vault,
            discover(*paths, config=self._config),
            user=user,
            tag=tag,
            label=label,
            secrets=secrets,
            dry_run=dry_run,
            verify=verify,
            events=events,
        )

    def estimate(self, *paths: Place, secrets: Secrets = "auto", events: Events = SILENT) -> BackupEstimate:
        """Return what a backup of the stores at the paths would add; nothing is written to the vault."""
        from memkeep.ops.estimate import estimate_backup

        return estimate_backup(self._vault, discover(*paths, config=self._config), secrets=secrets, events=events)

    def estimate_restore(self, snapshot: str = "latest", *, to: Place | None = None) -> RestoreEstimate:
        """Return what a restore of a snapshot would fetch and write."""
        from memkeep.ops.estimate import estimate_restore

        return estimate_restore(self._vault, snapshot, to=Path(to) if to is not None else None)

    def snapshots(self, *, system: str | None = None, tag: str | None = None) -> SnapshotList:
        """List the snapshots, oldest first."""
        from memkeep.ops.snapshots import list_snapshots

        return list_snapshots(self._vault, system=system, tag=tag)

    def show(self, snapshot: str = "latest") -> ShowResult:
        """Return what a snapshot holds."""
        from memkeep.ops.snapshots import show

        return show(self._vault, snapshot)

    def status(self, *paths: Place) -> StatusResult:
        """Return every store, its last snapshot and what is unprotected."""
        from memkeep.ops.status import status

        return status(self._vault, discover(*paths, config=self._config))

    def verify(
        self, snapshot: str | None = None, *, rung: Rung = Rung.READABLE, all: bool = False, events: Events = SILENT
    ) -> VerifyReport:
        """Prove a snapshot (default: the latest), or all, up to a rung; damage is reported, not raised."""
        from memkeep.ops.verify import verify

        return verify(self._vault, snapshot, rung=rung, all=all, events=events)

    def repair(
        self, *, mirror: "OpenVault | None" = None, dry_run: bool = False, events: Events = SILENT
    ) -> RepairResult:
        """Mend what can be mended of the vault itself, or from a mirror; what is lost is reported, not raised."""
        from memkeep.ops.repair import repair

        other = mirror._vault if mirror is not None else None  # noqa: SLF001 - of the same class
        return repair(self._vault, mirror=other, dry_run=dry_run, events=events)

    def copy(
        self,
        to: "OpenVault",
        *snapshots: str,
        include_secrets: bool = False,
        dry_run: bool = False,
        events: Events = SILENT,
    ) -> CopyResult:
        """Mirror snapshots, or all, into another vault; what can't be copied whole is reported, not raised."""
        from memkeep.ops.copy import copy

        other = to._vault  # noqa: SLF001 - of the same class
        return copy(self._vault, other, snapshots, include_secrets=include_secrets, dry_run=dry_run, events=events)

    def restore(
        self,
        snapshot: str = "latest",
        *,
        to: Place | None = None,
        parts: Sequence[str] = (),
        in_place: bool = False,
        confirm: str | None = None,
        even_if_open: bool = False,
        dry_run: bool = False,
        events: Events = SILENT,
    ) -> RestoreResult:
        """Bring a snapshot back into a new folder, a server, or in place of the live store (`confirm`: its system)."""
        from memkeep.ops.restore import restore

        return restore(
            self._vault,
            snapshot,
            to=to,
            parts=parts,
            in_place=in_place,
            confirm=confirm,
            even_if_open=even_if_open,
            dry_run=dry_run,
            config=self._config,
            events=events,
        )

    def restore_into(
        self,
        into: Place,
        snapshot: str = "latest",
        *,
        conflict: Conflict = "skip",
        user: str | None = None,
        parts: Sequence[str] = (),
        dry_run: bool = False,
        events: Events = SILENT,
    ) -> RestoreResult:
        """Put the records of a snapshot, or of one user in it, among those of a live store."""
        from memkeep.ops.restore import restore_into

        return restore_into(
            self._vault,
            snapshot,
            fspath(into),
            conflict=conflict,
            user=user,
            parts=parts,
            dry_run=dry_run,
            config=self._config,
            events=events,
        )

    def embed(
        self, store: Place, asked: Embedder | None = None, *, every: bool = False, events: Events = SILENT
    ) -> EmbedResult:
        """Make the vectors of a live store's texts, the missing ones or all; what it was is kept as a snapshot."""
        from memkeep.ops.embed import EmbedOptions, embed
        from memkeep.ops.records import store_at

        live = store_at(fspath(store), self._config)
        return embed(self._vault, live, asked or Embedder(), EmbedOptions(every=every), events=events)

    def look_at_vectors(
        self, name: str = "latest", asked: Embedder | None = None, *, sample: int = 20, events: Events = SILENT
    ) -> VectorsReport:
        """Say whether the vectors of a snapshot or a store are of one model; with `asked` of which."""
        from memkeep.ops.vectors import look

        return look(self._vault, name, asked, sample=sample, config=self._config, events=events)

    def pack(
        self,
        snapshot: str,
        file: Place,
        *,
        secrets: Secrets = "auto",
        recipients: Sequence[str] = (),
        passphrase: str | None = None,
        events: Events = SILENT,
    ) -> PackResult:
        """Write a snapshot into one new file for another machine, encrypted with age if wanted."""
        from memkeep.ops.age import Lock
        from memkeep.ops.pack import pack

        lock = Lock(recipients=tuple(recipients), passphrase=passphrase)
        return pack(self._vault, snapshot, Path(file), secrets=secrets, lock=lock, events=events)

    def export(
        self,
        snapshot: str,
        folder: Place,
        *,
        format: str = "json",
        user: str | None = None,
        scope: str | None = None,
        since: str | None = None,
        vectors: bool = True,
        redact: bool | None = None,
        git: bool = False,
        push: bool = False,
        dry_run: bool = False,
        events: Events = SILENT,
    ) -> ExportResult:
        """Write the records of a snapshot, or of a live store, as open files; `redact`: None is yes with `git`."""
        from memkeep.ops.export import export
        from memkeep.ops.records import Filters, of

        filters = Filters(user=user, scope=scope, since=since, vectors=vectors)
        with of(self._vault, snapshot, config=self._config, filters=filters, events=events) as source:
            return export(
                source, Path(folder), format, redact=redact, git=git, push=push, dry_run=dry_run, events=events
            )

    def import_(
        self,
        file: Place,
        into: Place,
        *,
        map: Mapping[str, str] | None = None,
        conflict: Conflict = "skip",
        dims: int | None = None,
        zone: str | None = None,
        history: bool = False,
        dry_run: bool = False,
        events: Events = SILENT,
    ) -> ImportResult:
        """Put an export, or what a product wrote, into a store, which is kept as a snapshot first.

        As `import_file` otherwise.
        """
        from memkeep.ops.imports import Reading, import_
        from memkeep.ops.migrate import changes_of

        return import_(
            self._vault,
            fspath(file),
            fspath(into),
            reading=Reading(zone=zone, history=history),
            changes=changes_of(map or {}),
            conflict=conflict,
            dims=dims,
            dry_run=dry_run,
            config=self._config,
            events=events,
        )

    def migrate(
        self,
        source: Place,
        to: Place,
        *,
        map: Mapping[str, str] | None = None,
        conflict: Conflict = "skip",
        dims: int | None = None,
        user: str | None = None,
        dry_run: bool = False,
        events: Events = SILENT,
    ) -> MigrateResult:
        """Write the records of a snapshot or live store into a store, which is kept as a snapshot first.

        As `migrate_store` otherwise.
        """
        from memkeep.ops.migrate import changes_of, migrate

        return migrate(
            self._vault,
            fspath(source),
            fspath(to),
            changes=changes_of(map or {}),
            conflict=conflict,
            dims=dims,
            user=user,
            dry_run=dry_run,
            config=self._config,
            events=events,
        )

    def prune(self, *, grace: timedelta | None = None, dry_run: bool = False, events: Events = SILENT) -> PruneResult:
        """Give back the space of what no snapshot needs any more; the default grace fits the kind of storage."""
        from memkeep.ops.prune import prune

        return prune(self._vault, grace=grace, dry_run=dry_run, events=events)

    def diff(self, a: Place, b: Place) -> DiffResult:
        """Compare two sides: a snapshot's name, `latest`, or the path of a live store."""
        from memkeep.ops.diff import diff

        return diff(self._vault, fspath(a), fspath(b), config=self._config)

    def history(self, id: str) -> HistoryResult:
        """Follow one memory through all snapshots."""
        from memkeep.ops.history import history

        return history(self._vault, id)

    def search(self, text: str, *, snapshot: str | None = None) -> SearchResult:
        """Find words over the records of one snapshot, or of all."""
        from memkeep.ops.search import search

        return search(self._vault, text, snapshot=snapshot)

    def audit(
        self,
        name: Place = "latest",
        *,
        categories: Sequence[str] = (),
        limit: int = 5,
        ask_hosts: bool = False,
        plan: Place | None = None,
        events: Events = SILENT,
    ) -> AuditResult:
        """Look through a snapshot or a live store for what should not be there; nothing is changed.

        `plan` is a new file that proposes what to do about it.
        """
        from memkeep.ops.audit import audit

        return audit(
            self._vault,
            fspath(name),
            categories=categories,
            limit=limit,
            ask_hosts=ask_hosts,
            plan=Path(plan) if plan is not None else None,
            config=self._config,
            events=events,
        )

    def apply(self, plan: Place, *, dry_run: bool = False, events: Events = SILENT) -> ApplyResult:
        """Delete what a plan says, all of it or nothing, after a snapshot; the result says how to undo it."""
        from memkeep.ops.apply import apply

        return apply(self._vault, Path(plan), dry_run=dry_run, config=self._config, events=events)

    def forget(
        self,
        *snapshots: str,
        retention: Retention | None = None,
        confirm: str | None = None,
        dry_run: bool = False,
    ) -> ForgetResult:
        """Forget the named snapshots, or those that a policy (default: the settings') does not keep.

        `confirm` names the system whose last good snapshot may go.
        """
        from memkeep.ops.forget import forget

        rules = retention if retention is not None else self._config.retention
        return forget(self._vault, snapshots, retention=rules, confirm=confirm, dry_run=dry_run)


def open_vault(url: Place, password: str | Ask | None = None, *, config: Config | None = None) -> OpenVault:
    """Open a vault by its place, or its name in the settings; `password` may be a function, called only if encrypted.

    Raises `VaultMissingError`, `WrongKeyError`, or `DamagedError` when its plain objects are not themselves.
    """
    from memkeep.ops.open import open_vault

    settings = config if config is not None else load()
    place = vault_settings(settings, str(url))
    return OpenVault(open_vault(place.url, password, settings=place), settings)


def init_vault(
    url: Place, password: str | None = None, *, encrypt: bool = True, config: Config | None = None
) -> InitResult:
    """Make a vault; the result has the recovery key, which is nowhere else."""
    from memkeep.ops.open import init_vault

    place = vault_settings(config if config is not None else load(), str(url))
    return init_vault(place.url, password, encrypt=encrypt, settings=place)


def restore_file(
    file: Place,
    *,
    to: Place,
    parts: Sequence[str] = (),
    identities: Sequence[Place] = (),
    passphrase: str | None = None,
    dry_run: bool = False,
    events: Events = SILENT,
) -> RestoreResult:
    """Bring back what `OpenVault.pack` wrote, into a new folder or a server; no vault is needed."""
    from memkeep.ops.age import Unlock
    from memkeep.ops.unpack import restore_file

    unlock = Unlock(identities=tuple(map(Path, identities)), passphrase=passphrase)
    return restore_file(Path(file), to=fspath(to), parts=parts, unlock=unlock, dry_run=dry_run, events=events)


def export_store(
    store: Place,
    folder: Place,
    *,
    format: str = "json",
    user: str | None = None,
    scope: str | None = None,
    since: str | None = None,
    vectors: bool = True,
    redact: bool | None = None,
    git: bool = False,
    push: bool = False,
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> ExportResult:
    """Write the records of a live store, which is only read, as open files; no vault is needed."""
    from memkeep.ops.export import export
    from memkeep.ops.records import Filters, of_store, store_at

    filters = Filters(user=user, scope=scope, since=since, vectors=vectors)
    with of_store(store_at(fspath(store), config), filters=filters, events=events) as source:
        return export(source, Path(folder), format, redact=redact, git=git, push=push, dry_run=dry_run, events=events)


def verify_export(folder: Place, *, events: Events = SILENT) -> VerifiedExport:
    """Check an export, every byte and every record; what is wrong is reported, not raised."""
    from memkeep.ops.exported import verify_export

    return verify_export(Path(folder), events=events)


def import_file(
    file: Place,
    into: Place,
    *,
    map: Mapping[str, str] | None = None,
    conflict: Conflict = "skip",
    dims: int | None = None,
    zone: str | None = None,
    history: bool = False,
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> ImportResult:
    """Put an export, or what a product wrote, into a store: a path, a URL, or `system:path` for a new one.

    `map` changes fields: {"scope": "agent:main"}, or {"scope:global": "agent:main"} only where it is `global`. `dims`
    is the size of vectors in a new store where no record has one, `zone` that of the host which wrote OpenMemory's zip,
    `history` asks for all that the git repository of a folder of notes remembers. No vault is needed.
    """
    from memkeep.ops.imports import Reading, import_
    from memkeep.ops.migrate import changes_of

    return import_(
        None,
        fspath(file),
        fspath(into),
        reading=Reading(zone=zone, history=history),
        changes=changes_of(map or {}),
        conflict=conflict,
        dims=dims,
        dry_run=dry_run,
        config=config,
        events=events,
    )


def migrate_store(
    store: Place,
    to: Place,
    *,
    map: Mapping[str, str] | None = None,
    conflict: Conflict = "skip",
    dims: int | None = None,
    user: str | None = None,
    dry_run: bool = False,
    config: Config | None = None,
    events: Events = SILENT,
) -> MigrateResult:
    """Write the records of a live store, which is only read, into another or a new one.

    `to`, `map` and `dims` are as in `import_file`. No vault is needed.
    """
    from memkeep.ops.migrate import changes_of, migrate

    return migrate(
        None,
        fspath(store),
        fspath(to),
        changes=changes_of(map or {}),
        conflict=conflict,
        dims=dims,
        user=user,
        dry_run=dry_run,
        config=config,
        events=events,
    )


def discover(*paths: Place, config: Config | None = None) -> list[Store]:
    """Find the stores at or below the paths or at URLs (default: the products' own places), and change nothing."""
    from memkeep.ops.discover import discover

    return discover(paths or None, config)
