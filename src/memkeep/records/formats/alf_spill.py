"""What an archive is put together from, on disk rather than in memory: ids, links, and lines by quarter."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from memkeep.records.formats.alf_record import uuid_of

_BUFFERED = 8 << 20


class Links:
    """The ids of all records and what joins them, in a temporary database that is gone with this."""

    def __init__(self) -> None:
        import apsw

        self._db = apsw.Connection("")
        self._db.execute("CREATE TABLE ids (id BLOB PRIMARY KEY, uuid TEXT) WITHOUT ROWID")
        self._db.execute("CREATE TABLE links (source BLOB, target TEXT, type TEXT)")
        self._db.execute("CREATE INDEX by_source ON links (source)")
        self._db.execute("BEGIN")

    def note(self, identity: str, minted: str) -> None:
        """Remember a record's UUID; of records with the same id the first is meant."""
        self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (_key(identity), minted))

    def join(self, source: str, target: str, kind: str) -> None:
        """Remember that one record points to another."""
        self._db.execute("INSERT INTO links VALUES (?, ?, ?)", (_key(source), _key(target), _key(kind)))

    def find(self, identity: str) -> str:
        """Return the UUID of a record; of one that is not there a UUID that names it."""
        found = self._db.execute("SELECT uuid FROM ids WHERE id = ?", (_key(identity),)).fetchone()
        return str(found[0]) if found else uuid_of("record", identity)

    def of(self, identity: str) -> Iterable[tuple[str, str]]:
        """Return the ids that a record points to, and the kinds, in the order in which they were told."""
        rows = self._db.execute("SELECT target, type FROM links WHERE source = ? ORDER BY rowid", (_key(identity),))
        return [(_text(target), _text(kind)) for target, kind in rows]

    def close(self) -> None:
        """Let the database go."""
        self._db.close()


class Quarters:
    """Lines by quarter of a year, each quarter a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, list[bytes]] = {}
        self._size = 0
        self._counts: dict[str, int] = {}

    def add(self, moment: str, line: dict[str, Any]) -> None:
        """Add a line under the quarter of a time, `2026-02-03T...`."""
        import orjson

        data = orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        quarter = quarter_of(moment)
        self._held.setdefault(quarter, []).append(data)
        self._counts[quarter] = self._counts.get(quarter, 0) + 1
        self._size += len(data)
        if self._size > _BUFFERED:
            self._flush()

    def close(self) -> dict[str, tuple[Path, int]]:
        """Return the files by quarter, oldest first, and how many lines each has."""
        self._flush()
        return {quarter: (self._folder / quarter, self._counts[quarter]) for quarter in sorted(self._counts)}

    def _flush(self) -> None:
        for quarter, held in self._held.items():
            with (self._folder / quarter).open("ab") as out:
                out.writelines(held)
        self._held.clear()
        self._size = 0


def quarter_of(moment: str) -> str:
    """Return the quarter of a time, `2026-Q1`."""
    return f"{moment[:4]}-Q{(int(moment[5:7]) + 2) // 3}"


def _key(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")
