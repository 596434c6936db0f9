"""Memories of which one says otherwise than another: of the same key, or of the same subject."""

import re
from collections import defaultdict
from collections.abc import Iterable

from memkeep.model import Severity
from memkeep.ops.audits.base import Kind, Noticed, Pass, Scene, is_current, owner
from memkeep.records.record import Record, Relationship

_KEYS = (("entity", "key", "value"), ("subject", "predicate", "object"))
_SUBJECT = re.compile(
    r"(?i)(?P<subject>[\w'\u2019 .-]{6,60}?) (?P<verb>is|was|lives in|works at|works for|moved to|runs on|listens on)"
    r" (?P<value>[^.!?;,\n]{1,40})[.!]?"
)
_WORDS = 3  # of a subject; what one person is, is many things
_MOST = 6  # different things said of one subject: more is a list, not a contradiction

name = "contradictions"
vectors = False
_MEND = "keep the one that is true"
kinds: tuple[Kind, ...] = (
    Kind(
        name="contradiction_by_key",
        title="memories with another value for the same key",
        severity=Severity.WARNING,
        mend=_MEND,
    ),
    Kind(
        name="contradiction_noted",
        title="contradictions that the product noted and nobody resolved",
        severity=Severity.WARNING,
        mend=_MEND,
    ),
    Kind(
        name="contradiction_by_subject",
        title="memories that say something else of the same subject",
        severity=Severity.INFO,
        mend="see whether both can be true",
    ),
)


class _Said:
    """What memories say of one key: value -> the records that say it."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[str, str]]] = {}  # normalised value -> (created, id)


class _Pass(Pass):
    def __init__(self) -> None:
        self._by_key = defaultdict[tuple[str | None, ...], _Said](_Said)
        self._by_subject = defaultdict[tuple[str | None, ...], _Said](_Said)
        self._noted: list[Noticed] = []

    def record(self, record: Record) -> None:
        if record.collection == "contradictions":
            self._note(record)
        elif is_current(record):
            key = _key(record)
            if key is not None:
                _add(self._by_key[(*owner(record), key[0])], key[1], record)
            elif (found := _SUBJECT.fullmatch(record.text.strip())) is not None:
                subject = _plain(found["subject"])
                if len(subject.split()) >= _WORDS or re.search(r"['\u2019]s\b", found["subject"]):
                    verb = found["verb"].lower().replace("was", "is")
                    _add(self._by_subject[(*owner(record), f"{subject} {verb}")], _plain(found["value"]), record)

    def relationship(self, one: Relationship) -> None:
        if one.type.lower() == "contradicts":
            self._noted.append(
                Noticed(
                    kind="contradiction_noted",
                    collection=one.collection,
                    id=one.id or f"{one.source} {one.target}",
                    why=f"{one.source} contradicts {one.target}",
                )
            )

    def noticed(self) -> Iterable[Noticed]:
        yield from _differing("contradiction_by_key", self._by_key)
        yield from self._noted
        few = {key: said for key, said in self._by_subject.items() if len(said.values) <= _MOST}
        yield from _differing("contradiction_by_subject", few)

    def _note(self, record: Record) -> None:
        said = record.metadata
        if not said.get("resolved"):
            why = f"{said.get('fact_id_new')} contradicts {said.get('fact_id_old')}"
            self._noted.append(Noticed(kind="contradiction_noted", collection=record.collection, id=record.id, why=why))


def _key(record: Record) -> tuple[str, str] | None:
    """Return the key that a memory speaks of and the value that it gives; None when its product has no such."""
    said = record.metadata
    for names in _KEYS:
        parts = [said.get(each) for each in names]
        if all(isinstance(part, str) and part.strip() for part in parts):
            subject, of, value = (_plain(str(part)) for part in parts)
            return f"{subject} / {of}", value
    inner = said.get("metadata")
    key = inner.get("fact_key") if isinstance(inner, dict) else said.get("fact_key")
    return (_plain(key), _plain(record.text)) if isinstance(key, str) and key.strip() else None


def _add(said: _Said, value: str, record: Record) -> None:
    said.values.setdefault(value, []).append((record.created_at or "", record.id))


def _differing(kind: str, known: dict[tuple[str | None, ...], _Said]) -> Iterable[Noticed]:
    """Yield all records of each key that has several values, but for those with the newest value."""
    for key, said in known.items():
        if len(said.values) == 1:
            continue
        newest = max(said.values, key=lambda value: max(said.values[value]))
        other = max(said.values[newest])[1]
        for value in said.values:
            if value != newest:
                for _, identity in said.values[value]:
                    why = f"{other} says otherwise, and later, of {key[-1]!r}"
                    yield Noticed(kind=kind, collection=str(key[0]), id=identity, why=why)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def begin(scene: Scene) -> Pass:  # noqa: ARG001 - the contract's signature
    """Begin a reading."""
    return _Pass()
