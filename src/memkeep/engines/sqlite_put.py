"""Put rows into one table of an open transaction. Runs in the child process.

Rows go in as they come: those whose key is not there many at once, and one by one where the database refuses one of
them or the key is there. A row that it refuses is named and leaves the others alone. The database's own triggers run,
so that full-text tables follow; what it says of conflicts in its schema (`ON CONFLICT REPLACE`) does not count.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from memkeep.engines.merging import NAMED, Counts, FailedRow, Wanted, is_chosen, plain_id, replaces
from memkeep.engines.sqlite_sql import affinity, query, quote, value
from memkeep.errors import StoreError
from memkeep.model import TableMap

if TYPE_CHECKING:
    import apsw

Values = Sequence[Any]
"""A row; text that is no text is the msgpack extension type 1 with its bytes."""

_TIMES = ("updated_at", "created_at")
_NO_TEXT = "it has text that is no UTF-8, which a database of UTF-16 can't hold"
_NONE = frozenset[int]()
_Form = tuple[tuple[str, ...], frozenset[int]]  # columns, and which of them are bytes to be taken for text


class _Words(NamedTuple):
    """What to say for rows of one form; the n-th column is the parameter ?n."""

    insert: str
    look: str  # is it the same, and the times that it has
    update: str
    times: tuple[str, ...]


class Putting:
    """The rows that go into one table."""

    def __init__(self, con: "apsw.Connection", map_: TableMap, types: dict[str, str], wanted: Wanted) -> None:
        """Begin; `types` are the columns that can be written, and how they are declared."""
        self.failed: list[FailedRow] = []
        self.conflicts: list[str] = []
        self.records: list[str] = []
        self._con = con
        self._map = map_
        self._wanted = wanted
        self._table = f"main.{quote(map_.table)}"
        self._key = [*map_.unique] or [map_.id]
        self._counts = dict.fromkeys(("inserted", "updated", "skipped", "same"), 0)
        self._words: dict[_Form, _Words] = {}
        self._utf8 = value(con, "PRAGMA encoding") == "UTF-8"
        self._numbers_itself = not map_.unique and _is_rowid(con, map_)
        self._hopeful = self._numbers_itself or _keeps_apart(con, map_.table, self._key)
        keys = ", ".join(f"k{n} {affinity(types[name])}" for n, name in enumerate(self._key))
        names = ", ".join(f"k{n}" for n in range(len(self._key)))
        self._keys = f"temp.{quote(f'keys of {map_.table}')}"
        con.execute(f"CREATE TABLE {self._keys}(n INTEGER PRIMARY KEY, {keys})")
        con.execute(
            f"CREATE INDEX temp.{quote(f'by key of {map_.table}')} ON {quote(f'keys of {map_.table}')}({names})"
        )
        same = " AND ".join(f"t.{quote(name)} IS g.k{n}" for n, name in enumerate(self._key))
        twin = " AND ".join(f"h.k{n} IS g.k{n}" for n in range(len(self._key)))
        self._ask_new = (
            f"SELECT n FROM {self._keys} AS g WHERE NOT EXISTS (SELECT 1 FROM {self._table} AS t WHERE {same})"
            f" AND NOT EXISTS (SELECT 1 FROM {self._keys} AS h WHERE {twin} AND h.n < g.n)"
        )

    def counts(self) -> Counts:
        """Return what has become of the rows so far."""
        return Counts(**self._counts)

    def put(self, names: Sequence[str], rows: Sequence[Values]) -> None:
        """Put in rows that all have these columns."""
        wanted = self._chosen(names, rows)
        named = self._named(names, wanted)
        if self._map.primary:
            self.records += map(plain_id, named)
        columns = self._written(names)
        if missing := [name for name in self._key if name not in columns]:
            if not self._numbers_itself:
                self._refuse(named, f"it has no {', '.join(missing)}")
                return
            new = set(range(len(wanted)))
        else:
            keys = _cut(wanted, [names.index(name) for name in self._key])
            # As long as none was there, the database itself says when one is: in a third of the time.
            hopeful = self._hopeful and not any(None in key for key in keys)
            new = set(range(len(wanted))) if hopeful else self._new(keys)
        rows = _cut(wanted, [names.index(column) for column in columns])
        odd = _odd(rows)
        for (is_new, texts), some in groupby(range(len(rows)), lambda at: (at in new, odd.get(at, _NONE))):
            run = [*some]
            if texts and not self._utf8:
                self._refuse([named[at] for at in run], _NO_TEXT)
            else:
                cells = [_bytes_of(rows[at]) if texts else rows[at] for at in run]
                self._run((tuple(columns), texts), [named[at] for at in run], cells, new=is_new)

    def _refuse(self, named: Sequence[str], reason: str) -> None:
        self.failed += [FailedRow(table=self._map.table, id=name, reason=reason) for name in named]

    def _chosen(self, names: Sequence[str], rows: Sequence[Values]) -> Sequence[Values]:
        if self._wanted.users is None and (self._wanted.records is None or not self._map.links):
            return rows
        return [row for row in rows if is_chosen(self._map, dict(zip(names, row, strict=True)), self._wanted)]

    def _written(self, names: Sequence[str]) -> list[str]:
        """Return the columns that are written: without a number that each database gives itself."""
        given = {self._map.id} - set(self._map.unique) if self._map.unique else set()
        return [name for name in names if name not in given]

    def _named(self, names: Sequence[str], rows: Sequence[Values]) -> list[str]:
        """Return what the rows are called where they are told of."""
        if self._map.id in names:
            place = names.index(self._map.id)
            return [str(row[place]) for row in rows]
        places = [names.index(column) for column in self._key if column in names]
        return ["/".join(str(row[place]) for place in places) for row in rows]

    def _new(self, keys: Sequence[Values]) -> set[int]:
        """Return which of the rows have a key that is neither there nor that of an earlier one."""
        marks = ", ".join("?" * (len(self._key) + 1))
        rows = [(n, *key) for n, key in enumerate(map(_bytes_of, keys) if _odd(keys) else keys)]
        self._con.execute(f"DELETE FROM {self._keys}")
        try:
            self._con.executemany(f"INSERT INTO {self._keys} VALUES ({marks})", rows)
        except _refusals():
            return set()
        return {n for (n,) in self._con.execute(self._ask_new)}

    def _run(self, form: _Form, named: Sequence[str], rows: Sequence[Values], *, new: bool) -> None:
        words = self._said(form)
        if new:
            try:
                with _Savepoint(self._con):
                    self._con.executemany(words.insert, rows)
            except _refusals():
                self._hopeful = False
            else:
                self._counts["inserted"] += len(rows)
                return
        for name, row in zip(named, rows, strict=True):
            try:
                with _Savepoint(self._con):
                    self._counts[self._one(words, form[0], row, name)] += 1
            except _refusals() as error:
                self._refuse([name], str(error))

    def _one(self, words: _Words, names: tuple[str, ...], row: Values, name: str) -> str:
        """Put one row in; return what that was."""
        there = query(self._con, words.look, tuple(row)) if set(self._key) <= set(names) else []
        if not there:
            self._con.execute(words.insert, row)
            return "inserted"
        same, *times = there[0]
        if same:
            return "same"
        if len(self.conflicts) < NAMED:
            self.conflicts.append(f"{self._map.table}:{name}")
        before = dict(zip(words.times, times, strict=True))
        if not replaces(self._wanted, self._map, dict(zip(names, row, strict=True)), before):
            return "skipped"
        self._con.execute(words.update, row)
        return "updated"

    def _said(self, form: _Form) -> _Words:
        if form in self._words:
            return self._words[form]
        names, texts = form
        marks = {name: f"CAST(?{n + 1} AS TEXT)" if n in texts else f"?{n + 1}" for n, name in enumerate(names)}
        times = tuple(
            dict.fromkeys(one for field in _TIMES if (one := self._map.fields.get(field)) is not None and one in names)
        )
        # Binary, whatever the column's own collation: of texts that it takes for equal, one may be the newer.
        same = " AND ".join(f"{quote(name)} IS {mark} COLLATE BINARY" for name, mark in marks.items())
        key = " AND ".join(f"{quote(name)} IS {marks[name]}" for name in self._key if name in marks)
        into, changes = ", ".join(map(quote, names)), ", ".join(f"{quote(name)} = {marks[name]}" for name in names)
        words = _Words(
            insert=f"INSERT OR ABORT INTO {self._table} ({into}) VALUES ({', '.join(marks.values())})",
            look=f"SELECT {', '.join((same, *map(quote, times)))} FROM {self._table} WHERE {key}",
            update=f"UPDATE OR ABORT {self._table} SET {changes} WHERE {key}",
            times=times,
        )
        self._words[form] = words
        return words


class _Savepoint:
    """Undo what was done when it ends with an exception."""

    def __init__(self, con: "apsw.Connection") -> None:
        self._con = con

    def __enter__(self) -> None:
        self._con.execute("SAVEPOINT memkeep")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is not None:
            if not self._con.in_transaction:
                if isinstance(error, _refusals()):
                    raise StoreError(f"a trigger of the database undid everything: {error}") from error
                return  # SQLite itself did, as it does when the disk is full
            self._con.execute("ROLLBACK TO memkeep")
        self._con.execute("RELEASE memkeep")


def _cut(rows: Sequence[Values], places: Sequence[int]) -> Sequence[Values]:
    """Return some of the columns of rows."""
    if rows and places == [*range(len(rows[0]))]:
        return rows
    return list(zip(*[[row[place] for row in rows] for place in places], strict=True))


def _odd(rows: Sequence[Values]) -> dict[int, frozenset[int]]:
    """Return where rows have text that is none."""
    if msgspec.msgpack.Ext not in set(map(type, chain.from_iterable(rows))):
        return {}
    places = (frozenset(n for n, item in enumerate(row) if item.__class__ is msgspec.msgpack.Ext) for row in rows)
    return {at: found for at, found in enumerate(places) if found}


def _bytes_of(row: Values) -> Values:
    """Return a row with the bytes of what is no text."""
    return [bytes(item.data) if item.__class__ is msgspec.msgpack.Ext else item for item in row]


def _is_rowid(con: "apsw.Connection", map_: TableMap) -> bool:
    """Say whether the id is a number that the database gives to a row that has none."""
    keys: Iterator[Any] = con.execute(f"PRAGMA main.table_info({quote(map_.table)})")
    return [(row[1], row[2].upper()) for row in keys if row[5]] == [(map_.id, "INTEGER")]


def _keeps_apart(con: "apsw.Connection", table: str, key: Sequence[str]) -> bool:
    """Say whether a constraint of the table lets no key in twice."""
    indexes = query(con, f"PRAGMA main.index_list({quote(table)})")
    names = [name for _, name, unique, origin, partial in indexes if unique and origin in ("pk", "u") and not partial]
    return any({row[2] for row in query(con, f"PRAGMA main.index_info({quote(name)})")} == set(key) for name in names)


def _refusals() -> tuple[type[Exception], ...]:
    import apsw

    return (apsw.ConstraintError, apsw.MismatchError, apsw.SQLError, apsw.TooBigError, TypeError, OverflowError)
