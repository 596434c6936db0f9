"""What became of merged rows, and the last step of a merge: all parts make it last, or it is said which did."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from memkeep.engines.merging import Conflict, Counts, FailedRow, Merging
from memkeep.errors import RefusedError, StoreError
from memkeep.model import Finding, Part, Severity, Store

_NAMED = 5
_MEND = "mend it in the store, or restore the snapshot with --to DIR and take it from there"
TRANSACTIONAL = frozenset({"chroma", "postgres", "qdrant-local", "sqlite"})

Done = Sequence[tuple[Part, Merging]]
"""What is merged into each part, and not yet made to last."""


class TableMerge(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows of one table."""

    part: str
    table: str
    inserted: int
    updated: int
    skipped: int
    same: int


class RefusedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that its database refused."""

    part: str
    table: str
    id: str
    reason: str


class MergeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a merge did, or in a dry run would do: the same numbers."""

    conflict: Conflict
    user: str | None
    inserted: int
    updated: int
    skipped: int
    same: int
    failed: tuple[RefusedRow, ...]
    tables: tuple[TableMerge, ...]


class Lasting(Protocol):
    """A change of a part that is not yet made to last."""

    def commit(self) -> None:
        """Make it last."""


def commit_all(done: Sequence[tuple[Part, Lasting]], store: Store, kept: str | None) -> None:
    """Make all changes last; when one fails, say which had been made to last before."""
    lasting: list[str] = []
    for part, one in sorted(done, key=lambda pair: pair[0].engine in TRANSACTIONAL):
        try:
            one.commit()
        except StoreError as error:
            if not lasting:
                raise
            before = f"; all as it was is snapshot {kept[:12]}" if kept else ". The same command again goes on"
            raise StoreError(
                f"{part.name} was not changed: {error.message}",
                unchanged=f"{', '.join(lasting)} had been changed already{before}.",
                hint=f"memkeep restore {kept[:12]} --in-place --confirm={store.system}" if kept else error.hint,
                code=error.code,
            ) from error
        lasting.append(part.name)


def refuse_conflicts(conflict: Conflict, done: Done) -> None:
    """Raise `RefusedError` (`conflicts`) when nothing may be there with other values and something is."""
    named = [name for _, one in done for name in one.result.conflicts]
    if conflict == "fail" and named:
        raise RefusedError(
            f"there already with other values: {', '.join(named[:_NAMED])}{', ...' if len(named) > _NAMED else ''}",
            hint="choose --conflict skip, update or newer",
            code="conflicts",
        )


def summed(done: Done, *, conflict: Conflict, user: str | None, mend: str = _MEND) -> tuple[MergeResult, list[Finding]]:
    """Return the numbers of all parts, and what is to be said beside them; `mend` is for rows that were refused."""
    tables = [
        TableMerge(part=part.name, table=name, **msgspec.structs.asdict(counts))
        for part, one in done
        for name, counts in one.result.tables.items()
        if counts != Counts()
    ]
    failed = [_refused(part, row) for part, one in done for row in one.result.failed]
    findings = [_row_finding(row, mend) for row in failed]
    findings += [
        Finding(code="columns_left", severity=Severity.WARNING, part=part.name, message=sentence)
        for part, one in done
        for sentence in one.result.left
    ]
    findings += [
        Finding(code="seen_later", severity=Severity.INFO, part=part.name, message=sentence)
        for part, one in done
        for sentence in one.result.notes
    ]
    result = MergeResult(
        conflict=conflict,
        user=user,
        inserted=sum(one.inserted for one in tables),
        updated=sum(one.updated for one in tables),
        skipped=sum(one.skipped for one in tables),
        same=sum(one.same for one in tables),
        failed=tuple(failed),
        tables=tuple(tables),
    )
    return result, findings


def _refused(part: Part, row: FailedRow) -> RefusedRow:
    return RefusedRow(part=part.name, table=row.table, id=row.id, reason=row.reason)


def _row_finding(row: RefusedRow, mend: str) -> Finding:
    return Finding(
        code="row_refused",
        severity=Severity.ERROR,
        part=row.part,
        record=row.id,
        message=f"the row of {row.table} is refused, the others are not: {row.reason}",
        mend=mend,
    )
