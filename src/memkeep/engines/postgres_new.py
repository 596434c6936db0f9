"""Make a new, empty table of vectors in a Postgres, as mem0 makes it."""

from memkeep.engines.postgres_catalogue import find_extensions
from memkeep.engines.postgres_connect import connected
from memkeep.engines.postgres_tables import quote
from memkeep.errors import RefusedError, quoted

_COLUMNS = ("id", "vector", "payload")
_INDEXED = 2000  # dimensions that pgvector's HNSW takes


def is_there(url: str, table: str, dims: int) -> bool:
    """Say whether there is an empty table `schema.name` of id, vector and payload that takes vectors of `dims`.

    Raises `RefusedError` (`target_exists`) when there is another, or anything in it, and `StoreError`.
    """
    with connected(url) as connection:
        found = connection.execute(
            "SELECT attname, atttypmod FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [_full(table)],
        ).fetchall()
        if not found:
            return False
        size = dict(found).get("vector", -1)
        other = {row[0] for row in found} != set(_COLUMNS) or size not in {-1, dims}
        if other or connection.execute(f"SELECT 1 FROM {_full(table)} LIMIT 1").fetchall():  # noqa: S608 - quoted
            raise RefusedError(
                f"{table} is there already, and {_other(size, dims) if other else 'not empty'}",
                hint=f"memkeep discover {quoted(url)}",
                code="target_exists",
            )
        return True


def _other(size: int, dims: int) -> str:
    return "of another kind" if size in {-1, dims} else f"takes vectors of {size} dimensions, not of {dims}"


def drop_empty(url: str, table: str) -> bool:
    """Drop a table if nothing is in it; say whether it is gone. Raises `StoreError`."""
    full = _full(table)
    with connected(url) as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {full} IN ACCESS EXCLUSIVE MODE")
        if connection.execute(f"SELECT 1 FROM {full} LIMIT 1").fetchall():  # noqa: S608 - quoted
            return False
        connection.execute(f"DROP TABLE {full}")
    return True


def create_vectors(url: str, table: str, dims: int) -> None:
    """Make a table `schema.name` of id, vector and payload, and its indexes. Raises `StoreError`."""
    full, name = _full(table), table.partition(".")[2]
    with connected(url) as connection, connection.transaction():
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        find_extensions(connection)
        connection.execute(f"CREATE TABLE {full} (id UUID PRIMARY KEY, vector vector({dims:d}), payload JSONB)")
        if dims <= _INDEXED:
            index = quote(f"{name}_hnsw_idx")
            connection.execute(f"CREATE INDEX {index} ON {full} USING hnsw (vector vector_cosine_ops)")
        index = quote(f"{name}_text_lemmatized_idx")
        words = "to_tsvector('simple', payload->>'text_lemmatized')"
        connection.execute(f"CREATE INDEX {index} ON {full} USING gin ({words})")


def _full(table: str) -> str:
    schema, _, name = table.partition(".")
    return f"{quote(schema)}.{quote(name)}"
