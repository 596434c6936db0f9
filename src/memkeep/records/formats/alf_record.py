"""One record as a memory record of the Agent Life Format, and back; `alf` says what is where."""

import hashlib
import uuid
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from memkeep.records import moments
from memkeep.records.readers.base import UnfitError
from memkeep.records.readers.numbers import DENSE, vector
from memkeep.records.record import Record, Relationship, Vector
from memkeep.records.wire import check, from_object, to_object

OURS = "memkeep"
UNKNOWN = "unknown/"
"""What stands before the name of a model whose provider nobody says; the format wants `provider/model`."""

_TYPES = {
    "episodic": {"episode", "episodes", "episodic", "event", "events", "event_log", "session"},
    "procedural": {"procedure", "procedures", "procedural", "rule", "rules", "edict", "edicts", "skill", "workflow"},
    "preference": {"preference", "preferences"},
    "summary": {"summary", "summaries", "reflection", "narrative", "narratives", "scenes"},
}
_TYPE_OF = {word: kind for kind, words in _TYPES.items() for word in words}
_STATUSES = {"active", "superseded", "archived", "deleted"}
_TIMES = ("updated_at", "valid_from", "valid_until", "last_accessed_at")
_SHARED = (
    *("text", "category", "scope", "session", "source", "tags", "confidence", "status", "access_count", "created_at"),
    *_TIMES,
)


class Known(Protocol):
    """What is known of the other records of an archive."""

    def find(self, identity: str) -> str:
        """Return the UUID of a record by its own id; of one that is not there a UUID that names it."""
        ...

    def of(self, identity: str) -> Iterable[tuple[str, str]]:
        """Return what a record points to: the ids and the kinds of relation."""
        ...


def mint(record: Record, number: int) -> str:
    """Return the UUID v7 of a record that has `number` records of the same id before it."""
    told = moments.to_number(moment_of(record.created_at), "ms")
    milliseconds = min(max(int(told or 0), 0), (1 << 48) - 1)
    rest = int.from_bytes(_digest(record.system, record.collection, record.id, str(number))[:10])
    high, low = rest >> 68 & 0xFFF, rest & ((1 << 62) - 1)
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))


def uuid_of(*names: str) -> str:
    """Return a UUID that names something always the same way."""
    return str(uuid.UUID(bytes=_digest(*names)[:16], version=4))


def moment_of(text: str | None) -> str | None:
    """Return a time as the format can say it, of the years 1 to 9999; None for any other."""
    told = None if text is None else moments.from_raw(text, "iso")
    return told if told is not None and told[4:5] == "-" and told[:4] != "0000" and told[0] not in "+-" else None


def clean(text: str) -> str:
    """Return a text that is good UTF-8; what is none becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def to_alf(record: Record, *, agent: str, moment: str, number: int, known: Known) -> dict[str, Any]:
    """Return a record as the format has it; `moment` is when it was exported."""
    embeddings, rest = _embeddings(record, moment)
    made = to_object(msgspec.structs.replace(record, vectors={}))
    if record.text and clean(record.text) == record.text:
        made.pop("text", None)
    said: dict[str, Any] = _shared(record, moment)
    said |= {"id": mint(record, number), "agent_id": agent, "memory_type": _type(record)}
    if record.supersedes is not None:
        said["supersedes"] = known.find(record.supersedes)
    if named := _entities(record.metadata):
        said["entities"] = named
    if embeddings:
        said["embeddings"] = embeddings
    if related := [{"id": known.find(target), "relation": clean(kind)} for target, kind in known.of(record.id)]:
        said["related_records"] = related
    said["raw_source_format"] = {OURS: made | ({"vectors": rest} if rest else {})}
    return said


def from_alf(said: Any, moment: str) -> Record:
    """Return the record of a line; where memkeep wrote it, all of what it was. Raises `ValueError`."""
    if not isinstance(said, dict) or not isinstance(said.get("content"), str) or not isinstance(said.get("id"), str):
        raise UnfitError("not a memory record: `id` or `content` is missing")
    raw = said.get("raw_source_format")
    kept = raw.get(OURS) if isinstance(raw, dict) else None
    shown = _shown(said)
    if not isinstance(kept, dict):
        return _foreign(said, shown)
    vectors = _vectors(kept.get("vectors"), said.get("embeddings"))
    document = {"text": said["content"]} | {name: value for name, value in kept.items() if name != "vectors"}
    made = from_object(document, Record)
    assert isinstance(made, Record)  # noqa: S101 - as was asked for
    before = _shown(_shared(made, moment))
    edited = {field: shown.get(field) for field in _SHARED if shown.get(field) != before.get(field)}
    if "tags" in edited:
        edited["tags"] = edited["tags"] or ()
    return msgspec.structs.replace(made, vectors=vectors, **edited)


def links_of(said: dict[str, Any]) -> list[Relationship]:
    """Return what a record of another program points to."""
    related = said.get("related_records")
    return [
        Relationship(source=said["id"], target=each["id"], type=each["relation"], system="alf")
        for each in (related if isinstance(related, list) else [])
        if isinstance(each, dict) and isinstance(each.get("id"), str) and isinstance(each.get("relation"), str)
    ]


def _shared(record: Record, moment: str) -> dict[str, Any]:
    """Return what the format and a record both say."""
    source = {"runtime": clean(record.system) or OURS, "extraction_method": "migrated"}
    source |= {k: clean(v) for k, v in (("origin", record.source), ("session_id", record.session)) if v is not None}
    times: dict[str, Any] = {"created_at": moment_of(record.created_at) or moment}
    times |= {name: told for name in _TIMES if (told := moment_of(getattr(record, name))) is not None}
    count = record.access_count
    if count.__class__ is int and count >= 0:
        times["access_count"] = count
    said: dict[str, Any] = {
        "content": clean(record.text) or " ",  # at least one character is asked for
        "source": source,
        "temporal": times,
        "status": record.status if record.status in _STATUSES else "active",
        "namespace": clean(record.scope or "default"),
    }
    if record.category is not None:
        said["category"] = clean(record.category)
    if record.tags:
        said["tags"] = [clean(tag) for tag in record.tags]
    if record.confidence is not None and 0 <= record.confidence <= 1:
        said["confidence"] = record.confidence
    return said


def _shown(said: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that the format's own fields say, where they are what they should be."""
    source, times = _dict(said.get("source")), _dict(said.get("temporal"))
    tags, confidence, count = said.get("tags"), said.get("confidence"), times.get("access_count")
    texts = {
        "text": said.get("content"),
        "category": said.get("category"),
        "scope": None if said.get("namespace") == "default" else said.get("namespace"),
        "session": source.get("session_id"),
        "source": source.get("origin"),
        "status": said.get("status"),
        **{name: times.get(name) for name in ("created_at", *_TIMES)},
    }
    found: dict[str, Any] = {field: value for field, value in texts.items() if isinstance(value, str)}
    if isinstance(tags, list) and tags and all(isinstance(tag, str) for tag in tags):
        found["tags"] = tuple(tags)
    if isinstance(confidence, int | float) and not isinstance(confidence, bool):
        found["confidence"] = confidence
    if isinstance(count, int) and not isinstance(count, bool):
        found["access_count"] = count
    return found


def _foreign(said: dict[str, Any], shown: dict[str, Any]) -> Record:
    """Return the record of a line that another program wrote: what has no field of its own is in `metadata`."""
    shown |= {n: moments.from_raw(shown[n], "iso") or shown[n] for n in ("created_at", *_TIMES) if n in shown}
    taken = {"id", "content", "category", "tags", "confidence", "status", "embeddings", "related_records", "namespace"}
    rest = {name: value for name, value in said.items() if name not in taken}
    supersedes = said.get("supersedes")
    return Record(
        id=said["id"],
        system="alf",
        metadata=rest,
        vectors=_foreign_vectors(said.get("embeddings")),
        supersedes=supersedes if isinstance(supersedes, str) else None,
        **shown,
    )


def _embeddings(record: Record, moment: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the embeddings of a record, and per vector what they do not say, or all of it."""
    import numpy as np

    listed: list[dict[str, Any]] = []
    rest: dict[str, Any] = to_object(record).get("vectors", {}) if _is_odd(record.vectors) else {}
    if rest:
        return listed, rest
    when = moment_of(record.updated_at) or moment_of(record.created_at) or moment
    for name, one in record.vectors.items():
        numbers = np.frombuffer(one.data, DENSE[one.type])
        wide = numbers.astype("<f4") if one.type == "f16" else numbers
        model = clean(one.model or "")
        listed.append(
            {
                "model": model if "/" in model.strip("/") else UNKNOWN + (model or "model"),
                "dimensions": one.dims,
                "vector": wide,
                "computed_at": when,
                "source": "runtime",
            }
        )
        rest[name] = {"type": one.type, "model": one.model}
    return listed, rest


def _is_odd(vectors: dict[str, Vector]) -> bool:
    """Say whether JSON numbers under plain names would not give all vectors back."""
    import numpy as np

    for name, one in vectors.items():
        if one.type not in DENSE or not one.dims or clean(name) != name or clean(one.model or "") != (one.model or ""):
            return True
        try:
            check(one)
        except ValueError:
            return True
        if not np.isfinite(np.frombuffer(one.data, DENSE[one.type])).all():
            return True
    return False


def _vectors(kept: Any, embeddings: Any) -> dict[str, Vector]:
    """Put vectors together again: of the embeddings in their order, or of their own bytes."""
    if kept is None:
        return _foreign_vectors(embeddings)
    if isinstance(kept, dict) and kept and all(isinstance(each, dict) and "data" not in each for each in kept.values()):
        listed = embeddings if isinstance(embeddings, list) else []
        if len(listed) != len(kept):
            return _foreign_vectors(embeddings)
        return {
            name: vector(_dict(said).get("vector"), each.get("model"), each.get("type"))
            for (name, each), said in zip(kept.items(), listed, strict=True)
        }
    made = from_object({"id": "", "text": "", "vectors": kept}, Record)
    return made.vectors if isinstance(made, Record) else {}


def _foreign_vectors(embeddings: Any) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    for each in embeddings if isinstance(embeddings, list) else []:
        model = _dict(each).get("model")
        model = model.removeprefix(UNKNOWN) if isinstance(model, str) else None
        found[(model or str(len(found))) if found else ""] = vector(_dict(each).get("vector"), model)
    return found


def _entities(metadata: dict[str, Any]) -> list[dict[str, str]]:
    """Return the entities that products name: hybrid's `entity`, Thanos's list of names."""
    many = metadata.get("entities")
    names = [metadata.get("entity"), *(many if isinstance(many, list) else ())]
    return [{"name": clean(each), "type": "other"} for each in names if isinstance(each, str) and each]


def _type(record: Record) -> str:
    words = ((record.category or "").lower(), record.collection.lower())
    return next((_TYPE_OF[word] for word in words if word in _TYPE_OF), "semantic")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _digest(*names: str) -> bytes:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).digest()
