"""What `--json` prints for a verb where that is less, or more, than what its operation returns."""

from memkeep.model import Finding, Omission, Role, Rung, Snapshot, Store, Value


class PartRow(Value):
    """One part of a store."""

    name: str
    engine: str
    role: Role


class StoreRow(Value):
    """One store that was found."""

    system: str
    path: str
    parts: list[PartRow]
    records: int | None
    mapping: str
    omitted: tuple[Omission, ...]
    findings: tuple[Finding, ...]


class Discovered(Value):
    """What `discover` found."""

    stores: list[StoreRow]


class SnapshotRow(Value):
    """One snapshot in a list."""

    id: str
    created: str
    system: str
    path: str
    host: str
    parent: str | None
    tag: str | None
    label: str | None
    records: int | None
    source_bytes: int
    added_bytes: int
    duration_s: float
    rung: Rung
    consistent: bool
    omitted: tuple[Omission, ...]
    findings: tuple[Finding, ...]


class Snapshots(Value):
    """The snapshots of a vault, oldest first."""

    snapshots: list[SnapshotRow]


class Verified(Value):
    """What `verify` says of one snapshot."""

    snapshot: str
    rung: Rung
    findings: tuple[Finding, ...]


class VerifiedAll(Value):
    """What `verify --all` says: of each snapshot, and all findings together, each once."""

    snapshots: list[Verified]
    findings: list[Finding]


class Completion(Value):
    """The completion script of a shell."""

    shell: str
    script: str


def store_row(store: Store) -> StoreRow:
    """Return a store as `discover` shows it."""
    parts = [PartRow(name=part.name, engine=part.engine, role=part.role) for part in store.parts]
    return StoreRow(
        system=store.system,
        path=store.path,
        parts=parts,
        records=store.records,
        mapping=store.mapping,
        omitted=store.omitted,
        findings=store.findings,
    )


def snapshot_row(snapshot: Snapshot) -> SnapshotRow:
    """Return a snapshot as `snapshots` lists it."""
    return SnapshotRow(**{name: getattr(snapshot, name) for name in SnapshotRow.__struct_fields__})
