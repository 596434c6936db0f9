"""Where OpenMemory's tables and its vectors have come apart, and ids that SQLite destroyed.

The product writes to both without a transaction: an edit on its web page reaches the tables only, an agent's update
the vectors only, and errors of the vector store are swallowed. Paused and archived memories keep their points, deleted
ones have none.

Its ids are declared `UUID`, which to SQLite is a number's type: an id that reads as one, 32 digits or digits around
one `e`, is kept as that number. The point has it still. A number names one memory at most, since ids are unique; a
point is the memory of a number when its id reads as that number and no row has the id; of several the one with the
same text.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from blake3 import blake3

from memkeep.engines.merging import plain_id
from memkeep.model import Finding, Severity
from memkeep.records.times import to_iso
from memkeep.systems.base import LostId, Sides
from memkeep.systems.openmemory_maps import MEMORIES, POINTS

_DIGITS = 32
_BOUND = 20  # findings of one kind; then how many more there are
_CLOSE = 1e-12  # relative: two programs may round the last bit of a number of 32 digits in two ways
_NAMING = (
    (MEMORIES, "id"),
    ("memory_categories", "memory_id"),
    ("memory_status_history", "memory_id"),
    ("memory_access_logs", "memory_id"),
    ("access_controls", "object_id"),
)


class _Memory(NamedTuple):
    text: bytes  # a digest
    state: str
    time: str


class _Lost(NamedTuple):
    was: int | float | str
    number: float
    text: str
    memory: _Memory


class _Point(NamedTuple):
    text: bytes
    time: str


class _Compared(NamedTuple):
    """Both places, by plain id."""

    memories: dict[str, _Memory]
    points: dict[str, _Point]
    found: dict[str, _Lost]  # destroyed ids that a point still has, by what they were
    lost: list[_Lost]  # and those that none has


def drift(sides: Sides) -> list[Finding]:
    """Return what tables and vectors disagree about; nothing when one of them is not in the snapshot."""
    if MEMORIES not in sides:
        return []
    seen = _compared(sides)
    table = sides[MEMORIES].part
    findings = list(_bounded("id_destroyed", table, _destroyed(seen, known=POINTS in sides)))
    if POINTS not in sides:
        return findings
    vectors = sides[POINTS].part
    memories = seen.memories | {name: lost.memory for name, lost in seen.found.items()}
    missing = [name for name, one in memories.items() if one.state == "active" and name not in seen.points]
    extra = [name for name in seen.points if name not in memories]
    both = [name for name in memories if name in seen.points]
    deleted = [name for name in both if memories[name].state == "deleted"]
    differing = [name for name in both if name not in deleted and memories[name].text != seen.points[name].text]
    findings += _bounded(
        "vector_missing",
        table,
        ((name, "is active in SQL and has no vector: no agent finds it", _ADD) for name in missing),
    )
    findings += _bounded(
        "row_missing",
        vectors,
        (
            (name, "is in the vector store alone: agents find it, the web page does not show it", _REMOVE)
            for name in extra
        ),
    )
    findings += _bounded(
        "text_differs", table, (_differs(name, memories[name], seen.points[name]) for name in differing)
    )
    findings += _bounded(
        "deleted_searchable",
        vectors,
        ((name, "was deleted and is still in the vector store: agents find it", _REMOVE) for name in deleted),
    )
    return findings


def lost_ids(sides: Sides) -> list[LostId]:
    """Return the ids that SQLite destroyed and a point still has."""
    if MEMORIES not in sides or POINTS not in sides:
        return []
    return [
        LostId(was=one.was, id=name, text=one.text, part=sides[MEMORIES].part, columns=_NAMING)
        for name, one in _compared(sides).found.items()
    ]


_ADD = "delete it in OpenMemory and let an agent add it again, so that it gets a vector"
_REMOVE = "delete the point: POST /collections/openmemory/points/delete of Qdrant with this id"


def _compared(sides: Sides) -> _Compared:
    memories: dict[str, _Memory] = {}
    broken: list[_Lost] = []
    for row in sides[MEMORIES].rows:
        text = str(row.get("text") or "")
        memory = _Memory(_digest(text), str(row.get("state") or ""), _time(row))
        number = _number(row["id"])
        if number is None:
            memories[plain_id(row["id"])] = memory
        else:
            broken.append(_Lost(number if isinstance(row["id"], dict) else row["id"], number, text, memory))
    points = {
        plain_id(row["id"]): _Point(_digest(str(row.get("text") or "")), _time(row))
        for row in (sides[POINTS].rows if POINTS in sides else ())
    }
    free = {name: number for name in points if name not in memories and (number := _as_number(name)) is not None}
    found: dict[str, _Lost] = {}
    lost = []
    for one in broken:
        fitting = [name for name, number in free.items() if _same(number, one.number) and name not in found]
        alike = [name for name in fitting if points[name].text == one.memory.text]
        chosen = fitting if len(fitting) == 1 else alike
        if len(chosen) == 1:
            found[chosen[0]] = one
        else:
            lost.append(one)
    return _Compared(memories, points, found, lost)


def _number(cell: object) -> int | float | None:
    """Return the number that an id is in the table now; None when it is an id, as it should be.

    Where a table was mended, what nobody could tell is the text of a number.
    """
    if isinstance(cell, dict) and "float" in cell:
        return float(cell["float"])
    if isinstance(cell, str) and len(plain_id(cell)) != _DIGITS:
        try:
            return float(cell)
        except ValueError:
            return None
    return cell if isinstance(cell, int | float) and not isinstance(cell, bool) else None


def _as_number(name: str) -> float | None:
    """Return what SQLite makes of an id in a column of numbers; None when that is text."""
    digits, mark, exponent = name.partition("e")
    whole = digits.isascii() and digits.isdigit() and (not mark or (exponent.isascii() and exponent.isdigit()))
    return float(name) if whole else None


def _same(one: float, other: float) -> bool:
    return one == other or (math.isfinite(one) and math.isclose(one, other, rel_tol=_CLOSE))


def _destroyed(seen: _Compared, *, known: bool) -> Iterator[tuple[str, str, str]]:
    for name, one in seen.found.items():
        yield name, f"has the id {one.was} in SQL, a number that SQLite made of it: {_short(one.text)}", _RESTORED
    for one in seen.lost:
        why = "no point has what it was" if known else "the vectors, which have what it was, are not in the snapshot"
        yield str(one.was), f"is a number that SQLite made of an id, and {why}: {_short(one.text)}", _KEPT


_RESTORED = "memkeep restore writes the true id into the tables that it restores"
_KEPT = "it is kept as it is; copy its text and let an agent add it again"


def _differs(name: str, memory: _Memory, point: _Point) -> tuple[str, str, str]:
    if memory.time > point.time:
        newer, mend = "SQL", "agents find the old text: delete it in OpenMemory and let an agent add the new text"
    elif point.time > memory.time:
        newer, mend = "the vector store", "edit the memory on OpenMemory's web page to say what agents find"
    else:
        newer, mend = "neither", "see which is right: memkeep search TEXT"
    return name, f"has one text in SQL and another in the vector store; newer is {newer}", mend


def _bounded(code: str, part: str, told: Iterable[tuple[str, str, str]]) -> Iterator[Finding]:
    """Yield a finding for each of the first few, and one with the number of the others."""
    named = [*told]
    for name, message, mend in named[:_BOUND]:
        shown = _shown(name)
        yield Finding(
            code=code,
            severity=Severity.WARNING,
            part=part,
            record=shown,
            message=f"memory {shown} {message}",
            mend=mend,
        )
    if len(named) > _BOUND:
        rest = [_shown(name) for name, _, _ in named[_BOUND:]]
        yield Finding(
            code=code,
            severity=Severity.WARNING,
            part=part,
            message=f"and {len(rest)} more memories of which the same holds, from {rest[0]} to {rest[-1]}",
            mend=named[-1][2],
        )


def _shown(name: str) -> str:
    try:
        return str(UUID(name))
    except ValueError:
        return name


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - what fits in a line


def _digest(text: str) -> bytes:
    return blake3(text.encode("utf-8", "surrogatepass")).digest(16)


def _time(row: dict[str, Any]) -> str:
    return to_iso(row.get("updated_at") or row.get("created_at"), "iso") or ""
