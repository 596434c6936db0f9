"""What belongs to records that are gone: links, vectors, and what products keep beside a memory."""

import re
from collections.abc import Iterable

from memkeep.engines.merging import plain_id
from memkeep.model import Severity
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene
from memkeep.records.record import Record, Relationship

_LASTING = re.compile(r"history|logs?$")  # what is kept of a memory after its end
_NAMING = ("fact_id", "factId", "fact_id_new", "fact_id_old", "memory_id")

name = "orphans"
vectors = True
kinds: tuple[Kind, ...] = (
    Kind(
        name="orphan_vector",
        title="vectors of no record",
        severity=Severity.WARNING,
        mend="see whether the record was lost or the vector was left behind: recall still finds it",
    ),
    Kind(
        name="dangling_link",
        title="links to records that are gone",
        severity=Severity.WARNING,
        mend="delete them",
        proposal="delete",
    ),
    Kind(
        name="orphan_row",
        title="rows beside a memory that is gone",
        severity=Severity.WARNING,
        mend="delete them",
        proposal="delete",
    ),
    Kind(
        name="dangling_reference",
        title="memories that name a gone one as their successor",
        severity=Severity.INFO,
        mend="see whether what replaced them was meant to go",
    ),
)


def named_by(record: Record) -> list[tuple[str, str]]:
    """Return which memories a row beside them belongs to: keys and ids; none of what is kept of a memory's past."""
    if _LASTING.search(record.collection):
        return []
    said = ((key, record.metadata.get(key)) for key in _NAMING)
    return [(key, str(named)) for key, named in said if isinstance(named, str | int) and not isinstance(named, bool)]


class _Pass(Pass):
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._names: set[str] = set()
        self._naming: list[tuple[str, str, str, str, str]] = []  # kind, collection, id, what is named, how it is told

    def record(self, record: Record) -> None:
        self._names.add(plain_id(record.id))
        if record.superseded_by:
            self._name("dangling_reference", record, record.superseded_by, "it was replaced by")
        if not record.primary:
            for key, named in named_by(record):
                self._name("orphan_row", record, named, f"its {key} is")

    def relationship(self, one: Relationship) -> None:
        for end, named in (("source", one.source), ("target", one.target)):
            self._naming.append(
                ("dangling_link", one.collection, one.id or f"{one.source} {one.target}", named, f"its {end} is")
            )

    def noticed(self) -> Iterable[Noticed]:
        for collection, identity in self._scene.strangers:
            yield Noticed(kind="orphan_vector", collection=collection, id=identity, why="no record has this id")
        told = set()
        for kind, collection, identity, named, how in self._naming:
            if plain_id(named) not in self._names and (kind, collection, identity) not in told:
                told.add((kind, collection, identity))
                yield Noticed(kind=kind, collection=collection, id=identity, why=f"{how} {named}, which is gone")

    def _name(self, kind: str, record: Record, named: str, how: str) -> None:
        self._naming.append((kind, record.collection, record.id, named, how))


def begin(scene: Scene) -> Pass:
    """Begin a reading."""
    return _Pass(scene)
