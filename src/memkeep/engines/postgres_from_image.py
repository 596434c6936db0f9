"""The rows of an image, to be merged into live tables."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from memkeep.engines.postgres_catalogue import spelled
from memkeep.engines.postgres_image import Image
from memkeep.engines.postgres_pairs import Cell, Laid, Pair, equal, settle
from memkeep.engines.postgres_rebuild import pieces
from memkeep.engines.postgres_rows import Digest
from memkeep.engines.postgres_tables import Column, Table, quote
from memkeep.errors import StoreError
from memkeep.events import SILENT
from memkeep.model import TableMap

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection


class ImageRows:
    """A `Source` of the rows of an image, which are whole rows."""

    def __init__(self, image: Image, folder: Path) -> None:
        self._image = image
        self._folder = folder

    def lay(self, connection: "Connection", map_: TableMap, number: int) -> Laid | None:
        """Copy the rows of the table of this name, else of this collection."""
        named = {table.full: table for table in self._image.tables.tables}
        alike = [one.table for one in self._image.part.maps if one.collection == map_.collection]
        table = named.get(map_.table) or next((named[one] for one in alike if one in named), None)
        if table is None:
            return None
        live = spelled(connection, map_.table)
        there = {
            row[0]
            for row in connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 "
                "AND NOT attisdropped AND attgenerated = ''",
                [live],
            ).fetchall()
        }
        key = map_.unique or (map_.id,)
        mine = {column.name for column in table.columns}
        if not there or not set(key) <= there & mine:
            return Laid(None, (f"{map_.table} is left as it is: it has no {', '.join(key)}",))
        lost = sorted(mine - there)
        left = (f"{map_.table} has no column {', '.join(lost)} any more: left out",) if lost else ()
        cells = tuple(
            _cell(column)
            for column in (*table.vectors, *table.others)
            if column.name in there and (column.name != map_.id or not map_.unique or column.name in map_.unique)
        )
        pair = Pair(map_, quote(f"memkeep_rows_{number}"), live, cells, key)
        _fill(connection, table, self._folder / table.folder, pair.image)
        return Laid(pair, left)


def no_records(image: Image, maps: Iterable[TableMap]) -> tuple[str, ...]:
    """Say which tables of an image have rows that are no records: nothing tells which of them are which."""
    known = {map_.table for map_ in maps}
    named = [one.full for one in image.tables.tables if one.rows and one.full not in known]
    return (f"{', '.join(named)}: no records, left as they are",) if named else ()


def _cell(column: Column) -> Cell:
    value = f"i.{quote(column.name)}::{column.type}" if column.form == "text" else f"i.{quote(column.name)}"
    return Cell(column.name, value, equal(column, f"i.{quote(column.name)}"), value)


def _fill(connection: "Connection", table: Table, folder: Path, into: str) -> None:
    """Copy the image's rows into a temporary table."""
    every = (*table.vectors, *table.others)
    kinds = ", ".join(f"{quote(one.name)} {'text' if one.form == 'text' else one.type}" for one in every)
    names = ", ".join(quote(one.name) for one in every)
    connection.execute(f"CREATE TEMP TABLE {into} (memkeep_row bigserial, {kinds}) ON COMMIT DROP")
    digest = Digest(table)
    with connection.cursor() as cursor, cursor.copy(f"COPY {into} ({names}) FROM STDIN (FORMAT binary)") as copy:
        for piece in pieces(table, folder, digest, SILENT):
            copy.write(piece)
    if digest.count != table.rows:
        raise StoreError(
            f"the image of {table.full} has {digest.count} rows, not {table.rows}", hint="memkeep verify --all"
        )
    settle(connection, into)
