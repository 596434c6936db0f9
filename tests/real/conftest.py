"""What the truth of a real store is told in: digests over ids, texts and vectors, as shared/stores/README.md says."""

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest


class Check:
    """Compares a restored store with the truth, by plain sqlite3, apsw where that is too old, and plain lancedb."""

    def text_digest(self, records: Iterable[tuple[Any, str]]) -> str:
        """Return the digest of ids and texts."""
        hasher = hashlib.sha256()
        for pair in sorted((str(record), text) for record, text in records):
            hasher.update(json.dumps(list(pair), ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        return hasher.hexdigest()

    def vectors_digest(self, records: Iterable[tuple[Any, bytes]]) -> str:
        """Return the digest of ids and vectors (little-endian float32)."""
        hasher = hashlib.sha256()
        for record, vector in sorted((str(record), vector) for record, vector in records):
            hasher.update(record.encode() + b"\0" + vector)
        return hasher.hexdigest()

    def query(self, database: Path, *statements: str) -> list[list[tuple[Any, ...]]]:
        """Return the answers of a database, from an SQLite that knows all of its functions."""
        import apsw

        with closing(apsw.Connection(str(database))) as connection:
            return [connection.execute(statement).fetchall() for statement in statements]

    def sqlite(self, root: Path, truth: dict[str, Any], *, stock: bool = True) -> None:
        """Check databases (name -> what is known) for integrity, versions and row counts."""
        for name, want in truth.items():
            if want["bytes"] == 0:
                assert (root / name).stat().st_size == 0
                continue
            assert (root / name).stat().st_size == want["bytes"], name
            rows = want.get("rows", want.get("rows_of_non_empty_tables", {}))
            asked = [f'SELECT count(*) FROM "{table}"' for table in rows]
            answers = (self._stock if stock else self.query)(
                root / name, "PRAGMA journal_mode", "PRAGMA integrity_check", "PRAGMA user_version", *asked
            )
            said = [answer[0][0] for answer in answers]
            assert said == [want["journal_mode"], want["integrity_check"], want["user_version"], *rows.values()], name

    def _stock(self, database: Path, *statements: str) -> list[list[tuple[Any, ...]]]:
        import sqlite3

        with closing(sqlite3.connect(database)) as connection:
            return [connection.execute(statement).fetchall() for statement in statements]

    def lance(self, table: Path, want: dict[str, Any]) -> list[dict[str, Any]]:
        """Check a LanceDB table; return its rows."""
        import lancedb

        opened = lancedb.connect(table.parent).open_table(table.stem)
        rows: list[dict[str, Any]] = opened.search().limit(1_000_000).to_list()
        assert len(rows) == opened.count_rows() == want["rows"]
        assert opened.version == want["version"]
        assert [field.name for field in opened.schema] == list(want["columns"])
        assert [(index.name, index.index_type) for index in opened.list_indices()] == [
            (index["name"], index["type"]) for index in want["indices"]
        ]
        vectors = [(row["id"], struct.pack(f"<{want['dims']}f", *row[want["vector_column"]])) for row in rows]
        assert self.vectors_digest(vectors) == want["vectors_sha256"]
        if "text_digest" in want:
            assert self.text_digest((row["id"], row["text"]) for row in rows) == want["text_digest"]
        return rows

    def counts(self, values: Iterable[str]) -> dict[str, int]:
        """Return how often each value occurs."""
        return dict(Counter(values))


@pytest.fixture
def check() -> Check:
    """Return the checks."""
    return Check()
