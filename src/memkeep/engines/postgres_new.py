"""Make a new, empty table of vectors in a Postgres, as mem0 makes it."""

from memkeep.engines.postgres_connect import connected
from memkeep.engines.postgres_tables import quote
from memkeep.errors import RefusedError

_INDEXED = 2000  # dimensions that pgvector's HNSW takes


def create_vectors(url: str, table: str, dims: int) -> None:
    """Make a table `schema.name` of id, vector and payload, and its index.

    One that is there and empty and takes these vectors is used. Raises `RefusedError` (`target_exists`), `StoreError`.
    """
    schema, _, name = table.partition(".")
    full = f"{quote(schema)}.{quote(name)}"
    with connected(url) as connection, connection.transaction():
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        there = connection.execute("SELECT to_regclass(%s)", [full]).fetchone()
        if there is not None and there[0] is not None:
            rows = connection.execute(f"SELECT 1 FROM {full} LIMIT 1").fetchall()  # noqa: S608 - quoted
            if rows:
                raise RefusedError(
                    f"{table} is there already, and not empty", hint=f"memkeep discover {url}", code="target_exists"
                )
            return
        connection.execute(f"CREATE TABLE {full} (id UUID PRIMARY KEY, vector vector({dims:d}), payload JSONB)")
        if dims <= _INDEXED:
            index = quote(f"{name}_hnsw_idx")
            connection.execute(f"CREATE INDEX {index} ON {full} USING hnsw (vector vector_cosine_ops)")
