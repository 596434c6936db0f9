"""Delete records of the collections of a live Chroma directory, through Chroma's own queue; see `chroma_merge`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from memkeep.engines.chroma_merge import Queue, asking, begun
from memkeep.engines.chroma_rows import Joined, collections
from memkeep.engines.merging import plain_id
from memkeep.engines.rows import Deleted, Gone
from memkeep.errors import StoreError

if TYPE_CHECKING:
    import apsw


class ChromaDelete:
    """A deletion in an open transaction."""

    def __init__(self, con: "apsw.Connection", live: Path, gone: Sequence[Gone]) -> None:
        """Queue the deletions; `result` says how many of which collections."""
        self._con = con
        ask = asking(con)
        there = {one.name: one for one in collections(ask)}
        tables = dict.fromkeys(one.table for one in gone if one.table in there)
        lost = {}
        for table in tables:
            named = [one for one in gone if one.table == table and "id" in one.columns]
            spelled = {name for one in named if one.spelled for name in one.ids}
            plain = {name for one in named if not one.spelled for name in one.ids}
            found = [str(point.id) for points in Joined(ask, there[table], live).records() for point in points]
            going = [name for name in found if name in spelled or plain_id(name) in plain]
            queue = Queue(con, there[table])
            for name in going:
                queue.delete(name)
            lost[table] = len(going)
        self.result = Deleted(tables=lost)

    def commit(self) -> None:
        """Make it last."""
        import apsw

        try:
            self._con.execute("COMMIT")
        except apsw.Error as error:
            raise StoreError(f"the records were not deleted: {error}", hint="df -h") from error


@contextmanager
def deleting(live: Path, gone: Sequence[Gone]) -> Iterator[ChromaDelete]:
    """Delete records of the directory `live`. Raises `StoreError` when it can't be written."""
    with begun(live) as con:
        yield ChromaDelete(con, live, gone)
