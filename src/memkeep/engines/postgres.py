"""Tables of a Postgres database, pgvector's among them: one transaction, and binary COPY both ways.

A part is a database, or the tables of it that `include` names as `schema.table`, each with its partitions; its image
is files that `psql` can load (see `postgres_image`). Rights, owners, tablespaces and views are left out; so are
functions and sequences that no table names, and large objects.
"""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from memkeep.engines import logins, postgres_recall, recall
from memkeep.engines.base import Rebuilt, ServerInspection
from memkeep.engines.merging import Wanted, left_out
from memkeep.engines.postgres_catalogue import relations
from memkeep.engines.postgres_connect import connected
from memkeep.engines.postgres_freeze import Taken, choose, snapshot, states, take
from memkeep.engines.postgres_image import Image
from memkeep.engines.rows import Columns, Gone, Rows
from memkeep.errors import MemkeepError, StoreError
from memkeep.events import Events
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, Severity
from memkeep.records.groups import Group

if TYPE_CHECKING:
    from memkeep.engines.postgres_delete import PostgresDelete
    from memkeep.engines.postgres_merge import PostgresMerge
    from memkeep.engines.postgres_pairs import Source

_MARKS = "marks"


class Frozen(Image):
    """One moment of live tables, copied out of their server."""

    def __init__(self, part: Part, root: Path, scratch: Path, taken: Taken) -> None:
        super().__init__(part, root, scratch, scratch / _MARKS)
        self.how = f"one read-only transaction (PostgreSQL {taken.server.split()[0]})"
        self._taken = taken

    def runs(self, entry: Entry) -> tuple[Run, ...]:
        """Return where vectors lie in a file of them."""
        return self._taken.runs.get(entry.path.removeprefix(f"{self.part.name}/"), ())

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:
        """Read every row once; then have the server's own search answer the questions too, if nothing has changed."""
        yield from super().scan(bits, probes)
        if self.part.user is not None:  # its answers would be of everybody's rows
            return
        with suppress(StoreError):
            answers = postgres_recall.ask(self.part.path, self.asked)
            if answers and not self.moved():
                baseline = self.baseline()
                self._baseline = msgspec.structs.replace(baseline, facts=baseline.facts | recall.fact(answers))

    def moved(self) -> bool:
        """Say whether a row of the tables was written since; also when the server no longer says."""
        try:
            with connected(self.part.path) as connection:
                if snapshot(connection) == self._taken.snapshot:
                    return False
                there = [one for one in relations(connection) if one.full in self._taken.states]
                return states(connection, there) != self._taken.states
        except StoreError:
            return True

    def omitted(self) -> list[Omission]:
        """Return the tables, and what of tables, the image has not."""
        found = [Omission(part=self._named(left.name), reason=left.reason) for left in self._taken.left]
        for table in self.tables.tables if self.part.user is not None else ():
            others = self._taken.states.get(table.full, (table.rows, 0))[0] - table.rows
            reason = f"{others} rows that are not of {self.part.user}"
            found += [Omission(part=self._named(table.full), reason=reason)] if others else []
        return found

    def findings(self) -> list[Finding]:
        """Return what was noticed; a table that could not be read is an error."""
        found = [
            self.finding(
                "postgres_table_unread" if left.lost else "postgres_left_out",
                f"{left.name} {'is' if left.lost else 'has something that is'} left out: {left.reason}.",
                Severity.ERROR if left.lost else Severity.INFO,
                left.mend or ("let the role read it: GRANT SELECT, or BYPASSRLS" if left.lost else ""),
            )
            for left in self._taken.left
        ]
        return [*found, *super().findings()]

    def _named(self, name: str) -> str:
        return f"{self.part.name}/{name}"


class PostgresEngine:
    """Freezes, opens and rebuilds Postgres tables. See `engines.base.ServerEngine`."""

    name = "postgres"

    @contextmanager
    def freeze(self, part: Part, root: Path, scratch: Path) -> Iterator[Frozen]:  # noqa: ARG002 - the contract's
        """Copy the tables out at one moment, into `scratch`. Raises `StoreError`, `UnstableError` as `take` does."""
        image = scratch / "image"
        try:
            taken = take(part, image / part.name, scratch / _MARKS)
        except OSError as error:
            raise StoreError(
                f"the rows of {part.path} could not be kept in {scratch} for the time being: {error.strerror}",
                hint="set TMPDIR to a folder with more room",
                code="scratch_full",
            ) from error
        yield Frozen(part, image, scratch, taken)

    @contextmanager
    def open(self, part: Part, root: Path) -> Iterator[Image]:
        """Open the image that lies under a private folder."""
        yield Image(part, root, None)

    def count(self, part: Part, table: str) -> int | None:
        """Count the rows of a live table; None when it can't be read."""
        try:
            with connected(part.path) as connection:
                for one in relations(connection):
                    if one.full == table and one.readable:
                        row = connection.execute(f"SELECT count(*) FROM {one.source}").fetchone()
                        return int(row[0]) if row else None
        except MemkeepError:
            return None
        return None

    def size(self, part: Part) -> int:
        """Return the bytes of the tables, without their indexes."""
        with connected(part.path) as connection:
            wanted, _ = choose(part, relations(connection))
            row = connection.execute(
                "SELECT coalesce(sum(pg_table_size(oid)), 0)::int8 FROM unnest(%s::oid[]) oid",
                [[one.oid for one in wanted]],
            ).fetchone()
            return int(row[0]) if row else 0

    def inspect(self, url: str) -> ServerInspection:
        """Return the tables of a database."""
        from memkeep.engines.postgres_inspect import inspect

        return inspect(url)

    def aim(self, part: Part, url: str) -> str:  # noqa: ARG002 - the contract's
        """Return the database that a URL names: tables keep their schemas and names."""
        return logins.clean(url)

    def exists(self, part: Part, target: str) -> bool:
        """Say whether one of the part's tables is there."""
        mine = {*part.include, *(map_.table for map_ in part.maps)}
        with connected(target) as connection:
            return any(one.full in mine for one in relations(connection))

    def by_hand(self, part: Part, root: Path) -> str:
        """Return the command that loads it all, or nothing of it."""
        load = "psql --single-transaction --set ON_ERROR_STOP=1 --file restore.sql postgresql://USER@HOST/DATABASE"
        return f"cd {shlex.quote(str(root / part.name))} && {load}"

    @contextmanager
    def merge(self, live: Part, image: Part, root: Path, wanted: Wanted) -> "Iterator[PostgresMerge]":
        """Merge an image into the live tables; see `postgres_merge`."""
        from memkeep.engines.postgres_from_image import ImageRows, no_records

        opened = Image(image, root, None)
        with _merging(live, ImageRows(opened, root / image.name), wanted) as one:
            left = (*one.result.left, *no_records(opened, (*live.maps, *image.maps)))
            one.result = msgspec.structs.replace(one.result, left=left)
            yield one

    def columns(self, live: Part, table: str) -> Columns | None:
        """Return what a live table takes; None when it is not there."""
        from memkeep.engines import postgres_from_rows

        with connected(live.path) as connection:
            return postgres_from_rows.columns(connection, table)

    @contextmanager
    def merge_rows(
        self,
        live: Part,
        rows: Mapping[str, Rows],
        wanted: Wanted,
        scratch: Path | None = None,  # noqa: ARG002 - the contract's signature
    ) -> "Iterator[PostgresMerge]":
        """Merge rows into the live tables; see `postgres_from_rows`."""
        from memkeep.engines.postgres_from_rows import PostgresRows

        with _merging(live, PostgresRows(rows), wanted) as one:
            left = (*one.result.left, *left_out(rows, live.maps))
            one.result = msgspec.structs.replace(one.result, left=left)
            yield one

    @contextmanager
    def delete_rows(self, live: Part, gone: Sequence[Gone]) -> "Iterator[PostgresDelete]":
        """Delete rows of the live tables."""
        from memkeep.engines.postgres_delete import PostgresDelete

        with connected(live.path) as connection:
            try:
                yield PostgresDelete(connection, gone)
            finally:
                if not connection.broken and not connection.closed:
                    connection.execute("ROLLBACK")

    def rebuild(self, part: Part, root: Path, target: str, *, replace: bool, events: Events) -> Rebuilt:
        """Put the image into a database, in one transaction."""
        from memkeep.engines.postgres_rebuild import rebuild

        return rebuild(Image(part, root, None), root / part.name, target, replace=replace, events=events)

    def recall(self, part: Part, root: Path, target: str, baseline: Baseline) -> list[Finding]:
        """Ask the search of the database the questions that were asked before."""
        known = recall.wanted(baseline)
        probes = tuple(one for one in baseline.probes if (one.table, one.column, one.question) in known)
        answers = postgres_recall.ask(target, Image(part, root, None).look_up(probes)) if known else {}
        return recall.compare(part.name, baseline, answers)


@contextmanager
def _merging(live: Part, source: "Source", wanted: Wanted) -> "Iterator[PostgresMerge]":
    """Merge in a transaction that never was unless it is committed."""
    from memkeep.engines.postgres_merge import PostgresMerge

    with connected(live.path) as connection:
        try:
            yield PostgresMerge(connection, live, source, wanted)
        finally:
            if not connection.broken and not connection.closed:
                connection.execute("ROLLBACK")
