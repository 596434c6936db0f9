"""Merge rows of an image, or from elsewhere, into live tables, in one transaction.

The rows are copied into temporary tables first; what is there already, and the same, is found by joins. Rows go in by
hundreds, each batch in a savepoint; one that is refused is halved until the row is found that the server does not
take, so that it is named and the others go in.
"""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memkeep.engines.merging import (
    NAMED,
    Counts,
    FailedRow,
    Merged,
    Wanted,
    later,
    links_last,
    of_records,
    owner,
    plain_id,
)
from memkeep.engines.postgres_catalogue import find_extensions
from memkeep.engines.postgres_freeze import SETTINGS
from memkeep.engines.postgres_pairs import Pair, Source, attempt
from memkeep.engines.postgres_tables import quote
from memkeep.model import Part

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection


class PostgresMerge:
    """One open transaction on a database."""

    def __init__(self, connection: "Connection", live: Part, source: Source, wanted: Wanted) -> None:
        """Merge; `result` says what was done."""
        self._connection = connection
        self._wanted = wanted
        self._failed: list[FailedRow] = []
        self._conflicts: list[str] = []
        self._records: list[str] = []
        self._left: list[str] = []
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
        for setting in (*SETTINGS, "SET CONSTRAINTS ALL IMMEDIATE"):
            connection.execute(setting)
        find_extensions(connection)
        tables = {}
        for number, map_ in enumerate(links_last(live.maps)):
            laid = source.lay(connection, map_, number)
            if laid is not None:
                self._left += laid.left
                self._failed += laid.failed
                if laid.pair is not None:
                    tables[map_.table] = self._merge(laid.pair)
        self.result = Merged(
            tables=tables,
            failed=tuple(self._failed),
            conflicts=tuple(self._conflicts),
            records=tuple(self._records),
            left=tuple(self._left),
        )

    def commit(self) -> None:
        """Make it last."""
        self._connection.execute("COMMIT")

    def _merge(self, pair: Pair) -> Counts:
        new: list[int] = []
        other: list[tuple[int, str]] = []
        same = 0
        names = {}
        for row, name, there, equal in self._look(pair):
            names[row] = name
            if pair.map.primary:
                self._records.append(plain_id(name))
            if not there:
                new.append(row)
            elif equal:
                same += 1
            else:
                other.append((row, name))
        self._conflicts += [f"{pair.map.table}:{name}" for _, name in other[: NAMED - len(self._conflicts)]]
        replaced = self._replaced(pair, [row for row, _ in other])
        into = ", ".join(quote(one.name) for one in pair.cells)
        values = ", ".join(one.value for one in pair.cells)
        insert = (
            f"INSERT INTO {pair.live} ({into}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {pair.image} i "
            "WHERE i.memkeep_row = ANY(%s) ORDER BY i.memkeep_row"
        )
        fixed = {*pair.key, *self._numbered(pair)}
        changes = ", ".join(f"{quote(one.name)} = {one.change}" for one in pair.cells if one.name not in fixed)
        update = (
            f"UPDATE {pair.live} l SET {changes} FROM {pair.image} i WHERE {pair.joined} AND i.memkeep_row = ANY(%s)"
        )
        return Counts(
            inserted=self._apply(pair, insert, new, names),
            updated=self._apply(pair, update, replaced, names) if changes else 0,
            skipped=len(other) - len(replaced),
            same=same,
        )

    def _numbered(self, pair: Pair) -> list[str]:
        """Return the columns that the server alone numbers: it takes given numbers in a new row, never in a change."""
        found = self._connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attidentity = 'a'", [pair.live]
        )
        return [row[0] for row in found.fetchall()]

    def _look(self, pair: Pair) -> list[tuple[int, str, bool, bool]]:
        """Return the wanted rows: number, name, whether the key is there, and whether it all is the same."""
        equal = " AND ".join(cell.equal for cell in pair.cells) or "true"
        where, bound = self._filter(pair)
        return self._connection.execute(
            f"SELECT DISTINCT ON (i.memkeep_row) i.memkeep_row, {pair.name}, l.ctid IS NOT NULL, "
            f"coalesce(l.ctid IS NOT NULL AND {equal}, false) "
            f"FROM {pair.image} i LEFT JOIN {pair.live} l ON {pair.joined} {where} ORDER BY i.memkeep_row",
            bound,
        ).fetchall()

    def _filter(self, pair: Pair) -> tuple[str, list[Any]]:
        """Return the condition under which a row is wanted."""
        users = self._wanted.users
        user = owner(pair.map)
        said: list[str] = []
        bound: list[Any] = []
        if users is not None and user is not None:
            said.append(f"{pair.field(user, 'i')} = ANY(%s)")
            bound.append(list(users))
        elif users is not None and not pair.map.links:
            said.append("false")
        records = of_records(self._wanted, self._records).records
        if pair.map.links and records is not None:
            named = " OR ".join(f"replace(lower(i.{quote(one)}::text), '-', '') = ANY(%s)" for one in pair.map.links)
            said.append(f"({named})")
            bound += [list(records)] * len(pair.map.links)
        return (f"WHERE {' AND '.join(said)}" if said else ""), bound

    def _replaced(self, pair: Pair, rows: list[int]) -> list[int]:
        """Return those of the rows that are there with other values that replace them."""
        if self._wanted.conflict == "update":
            return rows
        if self._wanted.conflict != "newer" or not rows:
            return []
        fields = [field for field in ("updated_at", "created_at") if field in pair.map.fields]
        times = [pair.field(pair.map.fields[field], side) for field in fields for side in ("i", "l")]
        found = self._connection.execute(
            f"SELECT i.memkeep_row{''.join(f', {one}' for one in times)} FROM {pair.image} i "
            f"JOIN {pair.live} l ON {pair.joined} WHERE i.memkeep_row = ANY(%s) ORDER BY 1",
            [rows],
        ).fetchall()
        columns = [pair.map.fields[field] for field in fields]
        return [
            row
            for row, *values in found
            if later(
                pair.map, dict(zip(columns, values[::2], strict=True)), dict(zip(columns, values[1::2], strict=True))
            )
        ]

    def _apply(self, pair: Pair, statement: str, rows: Sequence[int], names: Mapping[int, str]) -> int:
        """Do something with some rows; those that the server refuses are noted. Returns how many it took."""
        done, failed = attempt(self._connection, pair.map.table, statement, rows, names)
        self._failed += failed.values()
        return done
