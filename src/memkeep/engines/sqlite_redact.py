"""A copy of a database's image in which one column says something else, and nothing of what it said before is left.

The image is changed in memory and written anew as a whole (`VACUUM`): freed pages and the slack of pages would keep
what was overwritten. Every other row stays as it is; rows that have no key of their own keep their order.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

from collections.abc import Callable
from contextlib import closing

from memkeep.engines.sqlite_sql import MAGIC, quote
from memkeep.errors import StoreError

_VERSIONS = slice(18, 20)  # of the file format for writing and reading: 2 asks for a WAL, which memory has not


def replace_texts(image: bytes, table: str, column: str, change: Callable[[str], str]) -> bytes:
    """Return the image with every text of a column changed; the same bytes when no text is.

    Raises `StoreError` when the image is no database that can be read.
    """
    import apsw

    if not image.startswith(MAGIC):
        raise StoreError("it is not a readable database")
    versions = image[_VERSIONS]
    work = bytearray(image)
    work[_VERSIONS] = b"\1\1"
    try:
        with closing(apsw.Connection(":memory:")) as con:
            con.deserialize("main", bytes(work))
            named, cell = quote(table), quote(column)
            rows = con.execute(f"SELECT rowid, {cell} FROM {named} WHERE typeof({cell}) = 'text'").fetchall()
            changed = [(new, row) for row, text in rows if (new := change(str(text))) != text]
            if not changed:
                return image
            for new, row in changed:
                con.execute(f"UPDATE {named} SET {cell} = ? WHERE rowid = ?", (new, row))
            con.execute("VACUUM")
            done = bytearray(con.serialize("main"))
    except (apsw.Error, UnicodeDecodeError) as error:
        raise StoreError(f"it can't be changed: {error}") from error
    done[_VERSIONS] = versions
    return bytes(done)
