"""Read every row of every table once: digests, groups of records, facts and probes. Runs in the child process.

A table's digest is BLAKE3 over the msgpack array of its column names and then, in key order, the msgpack array of each
row's values. Text that is not valid in the database's encoding is msgpack extension type 1 with the raw bytes.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

from memkeep.engines import sqlite_probe
from memkeep.engines.sqlite_collect import BadText, Collector, Row
from memkeep.engines.sqlite_sql import Table, query, quote, tables, value
from memkeep.model import Baseline, Finding, Probe, Severity, TableMap, TableState
from memkeep.records import groups

if TYPE_CHECKING:
    import apsw

_BATCH_ROWS = 256
_BATCH_BYTES = 1 << 20
_SHORT_ARRAY = 16  # msgpack: shorter arrays have a header of 1 byte, those of up to 65,535 items one of 3
_TOLERANCE = 2  # bits: groups four times too large or too small are cut anew
_TEXTS = 2
_ROWID = "rowid"
_encode = msgspec.msgpack.Encoder().encode


@dataclass
class _Reading:
    """What one pass over a table gave; `digest` is empty when it did not reach the end."""

    collectors: list[Collector]
    rows: int = 0
    digest: str = ""
    texts: list[str] = field(default_factory=list)
    error: Exception | None = None


def scan(
    con: "apsw.Connection",
    maps: Sequence[TableMap],
    bits: dict[str, int],
    probes: tuple[Probe, ...] | None,
    emit: Callable[[groups.Group], None],
) -> tuple[Baseline, list[Finding]]:
    """Read all; hand over each group as it is ready; return the baseline and what was noticed.

    A table that can't be read to its end is an error finding, not an exception: the rest is worth having.
    """
    all_tables = [with_rowid(table, maps) for table in tables(con)]
    mapped, findings = _match(all_tables, maps)
    nearest = sqlite_probe.nearest(con, mapped, probes)
    states: dict[str, TableState] = {}
    facts = _facts(con)
    texts: list[str] = []
    for table in all_tables:
        mine = [map_ for there, map_ in mapped if there is table]
        reading = _read(con, table, mine, bits, [one for one in nearest if one.target.table is table])
        texts += reading.texts
        states[table.name] = TableState(rows=reading.rows, digest=reading.digest)
        if reading.error is not None:
            findings.append(_unreadable(table, reading))
        for collector in reading.collectors:
            for group in collector.groups():
                emit(group)
            facts["summary"][collector.map.collection] = collector.summary()
            facts["vectors"] |= collector.vectors()
    answers = [probe for one in nearest for probe in one.answers()] + sqlite_probe.hits(con, probes, texts)
    if probes is not None:
        answers = [_answer_to(probe, answers) for probe in probes]
    return Baseline(tables=states, probes=tuple(answers), facts=facts), findings


def with_rowid(table: Table, maps: Sequence[TableMap]) -> Table:
    """Give a table whose records have no other name than their `rowid` that as its first column."""
    named = any(map_.id == _ROWID and map_.table.lower() == table.name.lower() for map_ in maps)
    return table._replace(columns=[_ROWID, *table.columns]) if named and table.order == _ROWID else table


def _match(there: Sequence[Table], maps: Sequence[TableMap]) -> tuple[list[tuple[Table, TableMap]], list[Finding]]:
    """Return the maps whose table and id column exist, and a finding for each other."""
    by_name = {table.name.lower(): table for table in there}
    mapped, findings = [], []
    for map_ in maps:
        table = by_name.get(map_.table.lower())
        if table is not None and map_.id.lower() in {column.lower() for column in table.columns}:
            mapped.append((table, map_))
            continue
        lack = f"no table {map_.table}" if table is None else f"no column {map_.id} in table {map_.table}"
        message = f"There is {lack}: the image holds all there is, but the collection {map_.collection} has no records."
        findings.append(Finding(code="sqlite_map_missing", severity=Severity.WARNING, message=message))
    return mapped, findings


def _unreadable(table: Table, reading: _Reading) -> Finding:
    import apsw

    unknown = isinstance(reading.error, apsw.SQLError)  # a function or collation that only the product has
    return Finding(
        code="sqlite_table_unreadable",
        severity=Severity.WARNING if unknown else Severity.ERROR,
        message=f"Table {table.name} could be read up to row {reading.rows} only: {reading.error}.",
        mend="The image holds its bytes; an older snapshot may hold the rows.",
    )


def _answer_to(asked: Probe, answers: Sequence[Probe]) -> Probe:
    for probe in answers:
        if (probe.kind, probe.table, probe.question) == (asked.kind, asked.table, asked.question) and (
            probe.column == asked.column
        ):
            return probe
    return Probe(kind=asked.kind, table=asked.table, column=asked.column, question=asked.question, ids=(), scores=())


def _facts(con: "apsw.Connection") -> dict[str, Any]:
    import apsw

    schema = query(con, "SELECT type, name, tbl_name, CAST(sql AS BLOB) FROM sqlite_schema ORDER BY 1, 2, 3")
    return {
        "sqlite": apsw.sqlite_lib_version(),
        "page_size": value(con, "PRAGMA page_size"),
        "user_version": value(con, "PRAGMA user_version"),
        "encoding": value(con, "PRAGMA encoding"),
        "schema": blake3(_encode(schema)).hexdigest(),
        "vectors": {},
        "summary": {},
    }


def _read(
    con: "apsw.Connection",
    table: Table,
    maps: Sequence[TableMap],
    bits: dict[str, int],
    nearest: Sequence[sqlite_probe.Nearest],
) -> _Reading:
    """Read a table; once more, looking at the bytes of its texts, when some are not valid."""
    import apsw

    reading = _Reading([])
    stored = str(value(con, "PRAGMA encoding"))
    # From UTF-16 SQLite makes UTF-8 of anything, and the same of different things: always look at the bytes.
    for encoding in ("", stored) if stored == "UTF-8" else (stored,):
        reading = _Reading([])
        digest = blake3(_encode(table.columns))
        try:
            count = value(con, f"SELECT count(*) FROM {quote(table.name)}") if maps else 0
            reading.collectors = [Collector(table.columns, map_, _bits(bits, map_, count)) for map_ in maps]
            for one in nearest:
                one.restart()
            for rows, packed in _batches(con, table, encoding):
                if not reading.rows:
                    reading.texts = _texts(table, maps, rows)
                digest.update(packed)
                reading.rows += len(rows)
                for collector in reading.collectors:
                    collector.add(rows)
                for one in nearest:
                    one.add(rows)
        except UnicodeDecodeError:
            continue
        except apsw.Error as error:
            reading.error = error
        else:
            reading.digest = digest.hexdigest()
        break
    return reading


def _bits(given: dict[str, int], map_: TableMap, rows: int) -> int:
    best = groups.bits_for(rows)
    kept = given.get(map_.collection, best)
    return kept if abs(kept - best) <= _TOLERANCE else best


def _texts(table: Table, maps: Sequence[TableMap], rows: Sequence[Row]) -> list[str]:
    columns = [column.lower() for column in table.columns]
    places = [columns.index(name) for map_ in maps if (name := map_.fields.get("text", "text").lower()) in columns]
    return [row[i] for i in places for row in rows[:_TEXTS] if isinstance(row[i], str)]


def _batches(con: "apsw.Connection", table: Table, encoding: str) -> Iterator[tuple[Sequence[Row], memoryview]]:
    """Yield rows in key order, and their msgpack arrays one after another, about 1 MiB at a time.

    With an encoding, texts are read as bytes and decoded here; what is no text stays bytes, marked as such.
    """
    columns = [quote(column) for column in table.columns]
    if encoding:
        columns = [as_bytes(column) for column in columns]
    order = f" ORDER BY {table.order}" if table.order else ""
    cursor = con.execute(f"SELECT {', '.join(columns)} FROM {quote(table.name)}{order}")
    size = 8
    while rows := list(islice(cursor, size)):
        if encoding:
            rows = [_decoded(row, encoding) for row in rows]
        packed = memoryview(_encode(rows))
        size = max(1, min(_BATCH_ROWS, _BATCH_BYTES * len(rows) // len(packed)))
        yield rows, packed[1 if len(rows) < _SHORT_ARRAY else 3 :]


def as_bytes(column: str) -> str:
    """Return the SQL for a quoted column, of which a text is its bytes, and for whether it is one."""
    return f"CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) ELSE {column} END, typeof({column}) = 'text'"


def _decoded(row: Sequence[Any], encoding: str) -> tuple[Any, ...]:
    return tuple(_text(item, encoding) if is_text else item for item, is_text in zip(row[::2], row[1::2], strict=True))


def _text(data: bytes, encoding: str) -> str | BadText:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return BadText(1, data)
