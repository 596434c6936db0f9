"""What a server's own index says are the rows nearest to some vectors: `ORDER BY column <operator> vector LIMIT n`."""
# ruff: noqa: S608 - names can't be bound; `postgres_tables.quote` quotes them

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from memkeep.engines.lance_probes import ANSWERS
from memkeep.engines.postgres_catalogue import search_extensions
from memkeep.engines.postgres_connect import connected
from memkeep.engines.postgres_tables import Table, quote
from memkeep.engines.recall import Answers

if TYPE_CHECKING:
    from memkeep.engines.postgres_connect import Connection
    from memkeep.engines.postgres_probes import Prober

_OPERATORS = {"l2": "<->", "ip": "<#>", "cosine": "<=>", "l1": "<+>"}
_INDEX = re.compile(r'USING (?:hnsw|ivfflat) \(("(?:[^"]|"")+"|\w+)(?: (?:[\w"]+\.)?\w+?_(l2|ip|cosine|l1)_ops)?\)')
_PATIENCE = 10  # seconds a question


def operator(table: Table, column: str) -> str | None:
    """Return the operator that the index of a column is for; None when it has none that a plain search uses."""
    for statement, _ in table.indexes:
        found = _INDEX.search(statement)
        if found and " WHERE " not in statement and quote(column) in (found[1], f'"{found[1]}"'):
            return _OPERATORS[found[2] or "l2"]
    return None


def ask(url: str, probers: "Sequence[Prober]") -> Answers:
    """Ask a server the questions of some probers, where there is an index. Raises `StoreError`."""
    asked = [(one, sign) for one in probers if (sign := operator(one.table, one.column)) is not None and one.questions]
    found: Answers = {}
    if asked:
        with connected(url) as connection:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            connection.execute(f"SET LOCAL statement_timeout = '{_PATIENCE}s'")
            search_extensions(connection)
            for one, sign in asked:
                found |= _answers(connection, one, sign)
            connection.execute("ROLLBACK")
    return found


def _answers(connection: "Connection", one: "Prober", sign: str) -> Iterator[tuple[tuple[str, str, str], list[str]]]:
    kind = next(column.kind for column in one.table.vectors if column.name == one.column)
    query = (
        f"SELECT {quote(one.id)}::text FROM {one.table.source} "
        f"ORDER BY {quote(one.column)} {sign} %s::{kind} LIMIT {ANSWERS}"
    )
    for question, vector in one.questions.items():
        rows = connection.execute(query, [_text(vector)]).fetchall()
        yield (one.table.full, one.column, question), [str(row[0]) for row in rows]


def _text(vector: Any) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"
