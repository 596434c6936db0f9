"""What `--json` prints as the result of each verb: the shapes that its operation does not have, and the list of all."""

from typing import Any

from memkeep.model import Finding, Omission, Role, Rung, Store, Value


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


class Verified(Value):
    """What `verify` says of one snapshot, and of the vault as a whole. No snapshot: the vault has lost them all."""

    snapshot: str | None
    rung: Rung
    findings: tuple[Finding, ...]


class VerifiedAll(Value):
    """What `verify --all` says: of each snapshot, and all findings together, each once, those of no snapshot too."""

    snapshots: list[Verified]
    findings: tuple[Finding, ...]


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


def result_types() -> dict[str, Any]:
    """Return the type of each verb's result. Fields are only ever added to these; anything else is a new schema."""
    from memkeep.ops.apply import ApplyResult
    from memkeep.ops.audit import AuditResult
    from memkeep.ops.backup import BackupResult
    from memkeep.ops.copy import CopyResult
    from memkeep.ops.demo import DemoResult
    from memkeep.ops.diff import DiffResult
    from memkeep.ops.embed import EmbedResult
    from memkeep.ops.estimate import BackupEstimate, RestoreEstimate
    from memkeep.ops.export import ExportResult
    from memkeep.ops.exported import VerifiedExport
    from memkeep.ops.forget import ForgetResult
    from memkeep.ops.history import HistoryResult
    from memkeep.ops.imports import ImportResult
    from memkeep.ops.keys import KeyResult
    from memkeep.ops.migrate import MigrateResult
    from memkeep.ops.open import InitResult
    from memkeep.ops.pack import PackResult
    from memkeep.ops.prune import PruneResult
    from memkeep.ops.repair import RepairResult
    from memkeep.ops.restore import RestoreResult
    from memkeep.ops.run import RunResult
    from memkeep.ops.schedule import ScheduleResult
    from memkeep.ops.search import SearchResult
    from memkeep.ops.snapshots import ShowResult, SnapshotList
    from memkeep.ops.status import StatusResult
    from memkeep.ops.vectors import VectorsReport

    return {
        "init": InitResult,
        "backup": BackupResult,
        "status": StatusResult,
        "run": RunResult,
        "schedule": ScheduleResult,
        "verify": Verified,
        "verify --all": VerifiedAll,
        "verify --vectors": VectorsReport,
        "repair": RepairResult,
        "copy": CopyResult,
        "discover": Discovered,
        "snapshots": SnapshotList,
        "show": ShowResult,
        "diff": DiffResult,
        "history": HistoryResult,
        "search": SearchResult,
        "audit": AuditResult,
        "apply": ApplyResult,
        "restore": RestoreResult,
        "pack": PackResult,
        "export": ExportResult,
        "export --verify": VerifiedExport,
        "import": ImportResult,
        "migrate": MigrateResult,
        "estimate": BackupEstimate,
        "estimate --snapshot": RestoreEstimate,
        "embed": EmbedResult,
        "prune": PruneResult,
        "forget": ForgetResult,
        "key": KeyResult,
        "demo": DemoResult,
        "completion": Completion,
    }
