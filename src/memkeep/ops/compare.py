"""Compare a restored part with what its snapshot says it was."""

from collections.abc import Iterable
from pathlib import Path

from memkeep.engines.catalog import engine
from memkeep.errors import MemkeepError
from memkeep.model import Finding, PartImage, Probe, Severity, StoredCollection
from memkeep.records.groups import Group
from memkeep.records.view import rows_by_id
from memkeep.vault.reader import chunk_id
from memkeep.vault.vault import Vault

_ENOUGH = 20  # findings of one kind; more say nothing new
_NOT_READ = frozenset({"qdrant_reader_missing"})  # nothing can be said of the rows
UNREADABLE = frozenset({"sqlite_unreadable", "lance_reader_missing", *_NOT_READ})  # they keep a part below `readable`
_TOLERANCE = 1e-4  # of a probe's score: another processor may add in another order


def compare_part(image: PartImage, root: Path, *, against: Vault | None = None) -> list[Finding]:
    """Open a part that lies under `root`, run its checks and compare the row counts.

    With `against`, the vault that has its records, also the digest of every table, every record group, and the answers
    to the recall probes are compared.
    """
    name = image.part.name
    baseline = image.baseline
    try:
        with engine(image.part.engine).open(image.part, root) as opened:
            bits = {one.map.collection: one.bits for one in image.collections}
            groups = opened.scan(bits, baseline.probes if against is not None else ())
            differing = _differing(against, image, groups)
            now = opened.baseline()
            findings = opened.check()
            findings += [one for one in opened.findings() if one not in findings]
    except MemkeepError as error:
        return [_wrong(name, "unreadable", f"{name} does not open after a restore: {error.message}")]
    if any(one.code in _NOT_READ for one in findings):
        return findings
    for table, state in baseline.tables.items():
        have = now.tables.get(table)
        if have is None or have.rows != state.rows:
            count = "no" if have is None else have.rows
            findings.append(
                _wrong(name, "rows_differ", f"{name}: {table or 'files'} has {count} rows, not {state.rows}")
            )
        elif against is not None and state.digest and have.digest != state.digest:
            findings.append(_wrong(name, "digest_differs", f"{name}: the rows of {table or 'files'} differ"))
    if against is not None:
        for collection in image.collections:
            findings += _records(against, name, collection, differing)
        findings += _probes(name, baseline.probes, now.probes)
    return findings


def spoiled(findings: Iterable[Finding]) -> bool:
    """Say whether findings keep what they are of below `readable`."""
    return any(finding.severity is Severity.ERROR or finding.code in UNREADABLE for finding in findings)


def _differing(vault: Vault | None, image: PartImage, groups: Iterable[Group]) -> dict[tuple[str, int], bytes]:
    """Take in all groups; return those that are not as stored: b"" for one that is gone, none without a vault."""
    wanted = {(one.map.collection, group.bucket): group.chunk for one in image.collections for group in one.groups}
    differing = dict.fromkeys(wanted, b"")
    for group in groups:
        key = (group.collection, group.bucket)
        if vault is None or chunk_id(vault.keys, group.data) == wanted.get(key):
            differing.pop(key, None)
        else:
            differing[key] = group.data
    return differing if vault is not None else {}


def _records(
    vault: Vault, name: str, collection: StoredCollection, differing: dict[tuple[str, int], bytes]
) -> list[Finding]:
    """Name the records that differ, the first few of them."""
    findings: list[Finding] = []
    stored = {group.bucket: group.chunk for group in collection.groups}
    for (owner, bucket), data in differing.items():
        if owner != collection.map.collection or len(findings) > _ENOUGH:
            continue
        before = rows_by_id(collection.map, vault.reader.chunk(stored[bucket])) if bucket in stored else {}
        after = rows_by_id(collection.map, data) if data else {}
        for record in sorted(before.keys() | after.keys()):
            if before.get(record) != after.get(record):
                what = "is missing" if record not in after else "differs" if record in before else "is new"
                findings.append(
                    Finding(
                        code="record_differs",
                        severity=Severity.ERROR,
                        part=name,
                        record=record,
                        message=f"{name}: {collection.map.collection} record {record} {what}",
                        mend="restore another snapshot",
                    )
                )
    return findings[:_ENOUGH]


def _probes(name: str, before: tuple[Probe, ...], after: tuple[Probe, ...]) -> list[Finding]:
    answers = {(probe.kind, probe.table, probe.column, probe.question): probe for probe in after}
    findings = []
    for probe in before:
        now = answers.get((probe.kind, probe.table, probe.column, probe.question))
        if now is None or not _same_answer(probe, now):
            findings.append(
                Finding(
                    code="recall_differs",
                    severity=Severity.ERROR,
                    part=name,
                    record=probe.question,
                    message=f"{name}: the {probe.kind} question {probe.question!r} has another answer",
                )
            )
    return findings


def _same_answer(before: Probe, after: Probe) -> bool:
    if len(before.ids) != len(after.ids) or len(before.scores) != len(after.scores):
        return False
    close = all(abs(a - b) <= _TOLERANCE * max(1.0, abs(a)) for a, b in zip(before.scores, after.scores, strict=True))
    # Equal scores may come in another order.
    return close and sorted(before.ids) == sorted(after.ids)


def _wrong(part: str, code: str, message: str) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, part=part, message=message, mend="restore another snapshot")
