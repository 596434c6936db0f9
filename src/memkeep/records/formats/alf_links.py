"""What an archive must know of all records while it writes one: their ids and what joins them."""

from collections.abc import Iterable

from memkeep.records.formats.alf_record import uuid_of


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


def _key(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")
