"""Look through the records of a store for what should not be there, or not so; nothing is changed."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from memkeep.config import Config
from memkeep.errors import INCOMPLETE, PROBLEMS, StoreError
from memkeep.events import SILENT, Events
from memkeep.model import Finding, Severity, is_url
from memkeep.ops import records
from memkeep.ops.audits.base import Check, Kind, Noticed, Scene
from memkeep.ops.audits.catalog import CHECKS
from memkeep.ops.scratch import scratch
from memkeep.records.formats.base import About, Source
from memkeep.vault.vault import Vault

EXAMPLES = 5


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One record of which something is to be said."""

    collection: str
    id: str
    why: str
    same_as: str | None = None


class AuditKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of thing that was looked for."""

    category: str
    kind: str
    title: str
    severity: Severity
    count: int  # of records; 0: it was looked for, and none was found
    mend: str
    examples: tuple[Example, ...]


class AuditResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was noticed, by category and kind, those without examples included."""

    system: str
    path: str
    snapshot: str | None
    taken: str
    records: int
    relationships: int
    kinds: tuple[AuditKind, ...]
    unchecked: tuple[str, ...]  # what could not be looked at, one sentence each
    omitted: tuple[str, ...]  # what of the store is not among the records, and why
    unread: tuple[Finding, ...]  # parts that could not be read: nothing is known of what they hold
    plan: str | None = None  # the file that was written
    planned: int | None = None  # its lines


class Audited(NamedTuple):
    """All that was noticed, for a plan."""

    about: About
    noticed: tuple[tuple[Kind, tuple[Noticed, ...]], ...]
    unchecked: tuple[str, ...]

    def result(self, limit: int = EXAMPLES) -> AuditResult:
        """Return it with at most so many examples of each kind."""
        category = {kind.name: check.name for check in CHECKS for kind in check.kinds}
        return AuditResult(
            system=self.about.system,
            path=self.about.path,
            snapshot=self.about.snapshot,
            taken=self.about.taken,
            records=self.about.records,
            relationships=self.about.relationships,
            kinds=tuple(
                AuditKind(
                    category=category[kind.name],
                    kind=kind.name,
                    title=kind.title,
                    severity=kind.severity,
                    count=len(found),
                    mend=kind.mend,
                    examples=tuple(
                        Example(collection=one.collection, id=one.id, why=one.why, same_as=one.same_as)
                        for one in found[:limit]
                    ),
                )
                for kind, found in self.noticed
            ),
            unchecked=self.unchecked,
            omitted=self.about.omitted,
            unread=self.about.unread,
        )


def audit(
    vault: Vault | None,
    name: str,
    *,
    categories: Sequence[str] = (),
    limit: int = EXAMPLES,
    ask_hosts: bool = False,
    plan: Path | None = None,
    config: Config | None = None,
    events: Events = SILENT,
) -> AuditResult:
    """Look through a snapshot or a live store (path, URL, name in the settings); only the categories that are given.

    With `plan` a file is written that proposes what to do, for `apply`; `RefusedError` when it is there already, and
    `StoreError` when not all could be read: what is missing would look like something to delete.
    """
    from memkeep.ops.plan import write

    checks = chosen(categories)
    filters = records.Filters(vectors=any(check.vectors for check in checks), carried=False)
    with records.of(vault, name, config=config, filters=filters, events=events) as source:
        if plan is not None and source.about.unread:
            first = source.about.unread[0]
            raise StoreError(f"a plan needs all of {name}: {first.message}", hint=first.mend or "memkeep verify")
        found = look(source, checks, strangers=source.strangers, ask_hosts=ask_hosts, events=events)
        lines = write(plan, source, found) if plan is not None else None
        return msgspec.structs.replace(found.result(limit), plan=str(plan) if plan else None, planned=lines)


def chosen(categories: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks of these categories; all when none is given."""
    return tuple(check for check in CHECKS if not categories or check.name in categories)


def look(
    source: Source,
    checks: Sequence[Check],
    *,
    strangers: Sequence[tuple[str, str]] = (),
    ask_hosts: bool = False,
    events: Events = SILENT,
) -> Audited:
    """Have checks see all records once; return what they noticed, in the order of the checks and their kinds."""
    about = source.about
    with scratch() as folder:
        scene = Scene(
            taken=about.taken,
            here=about.snapshot is None and not is_url(about.path) and Path(about.path).exists(),
            ask_hosts=ask_hosts,
            folder=folder,
            strangers=tuple(sorted(strangers)),
        )
        passes = [(check, check.begin(scene)) for check in checks]
        events.step("looking", about.records)
        for record in source.records():
            for _, one in passes:
                one.record(record)
            events.advance()
        for relationship in source.relationships():
            for _, one in passes:
                one.relationship(relationship)
        noticed: list[tuple[Kind, tuple[Noticed, ...]]] = []
        unchecked: list[str] = []
        for check, one in passes:
            events.step(f"comparing {check.name}")
            by_kind = defaultdict[str, list[Noticed]](list)
            for each in one.noticed():
                by_kind[each.kind].append(each)
            noticed += [(kind, tuple(by_kind[kind.name])) for kind in check.kinds]
            unchecked += one.unchecked()
    return Audited(about, tuple(noticed), tuple(unchecked))


def status_of_audit(result: AuditResult) -> int:
    """Return the exit status of an audit: what is worse than worth knowing is a problem."""
    if result.unread:
        return INCOMPLETE
    return PROBLEMS if any(one.count and one.severity is not Severity.INFO for one in result.kinds) else 0
