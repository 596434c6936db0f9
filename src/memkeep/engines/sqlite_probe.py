"""Recall questions that need no embedding model: the nearest neighbours of stored vectors, the best hits of words.

Vectors are float32 and compared by cosine over every row. Candidates are found in float32, the answers are worked out
again in float64 and rounded to 6 digits, so that they do not depend on the machine's matrix library.
"""
# ruff: noqa: S608 - names can't be bound; `sqlite_sql.quote` quotes them

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.sqlite_collect import Row, id_of
from memkeep.engines.sqlite_sql import Table, query, quote, value, virtual
from memkeep.model import Probe, TableMap

if TYPE_CHECKING:
    import apsw

QUESTIONS = 4
WORDS = 2
ANSWERS = 5
_KEPT = 32
_FLOAT32 = 4
_FTS_TABLES = 8
_WORD = re.compile(r"[^\W\d_]{4,30}")


class Target(NamedTuple):
    """A column of vectors and the column that names their records."""

    table: Table
    id: str
    column: str


class Nearest:
    """The nearest records of up to four records' own vectors, all of one length, over one column."""

    def __init__(self, target: Target, questions: dict[str, bytes] | None = None) -> None:
        names = [name.lower() for name in target.table.columns]
        self.target = target
        self._id = names.index(target.id.lower())
        self._column = names.index(target.column.lower())
        self._given = questions
        self.restart()

    def restart(self) -> None:
        """Forget the rows seen: the table is read from its first row again."""
        self._questions: list[tuple[str, bytes]] = []
        self._best: list[list[tuple[float, str, bytes]]] = []
        self._floors: list[float] = []
        self._matrix: Any = None
        if self._given:
            self._ask(list(self._given.items()))

    def _ask(self, questions: list[tuple[str, bytes]]) -> None:
        import numpy as np

        self._questions = questions
        self._best = [[] for _ in questions]
        self._floors = [-2.0] * len(questions)
        matrix = np.stack([np.frombuffer(vector, "<f4") for _, vector in questions], axis=1)
        self._matrix = matrix / np.linalg.norm(matrix, axis=0)

    def add(self, rows: Sequence[Row]) -> None:
        """Take in a batch of rows of the table."""
        i = self._column
        if not self._questions:
            self._choose(rows)
            if not self._questions:
                return
        import numpy as np

        size = len(self._questions[0][1])
        rows = [row for row in rows if type(row[i]) is bytes and len(row[i]) == size]
        if not rows:
            return
        block = np.frombuffer(b"".join([row[i] for row in rows]), "<f4").reshape(len(rows), -1)
        with np.errstate(all="ignore"):  # a vector of zeros or of nonsense is near to nothing
            scores = (block @ self._matrix) / np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
        for q, best in enumerate(self._best):
            for at in np.flatnonzero(scores[:, q] > self._floors[q]).tolist():
                best.append((float(scores[at, q]), id_of(rows[at][self._id]), rows[at][i]))
            if len(best) > _KEPT:
                best.sort(key=lambda item: -item[0])
                del best[_KEPT:]
                self._floors[q] = best[-1][0]

    def _choose(self, rows: Sequence[Row]) -> None:
        seen: set[str] = set()
        chosen: dict[bytes, str] = {}
        for row in rows:
            name, vector = row[self._id], row[self._column]
            # The first usable vector of an id, so that asking by id finds the same one again.
            if isinstance(name, (str, int, bytes)) and id_of(name) not in seen and usable(vector):
                seen.add(id_of(name))
                if len(vector) == len(next(iter(chosen), vector)):
                    chosen.setdefault(vector, id_of(name))
            if len(chosen) == QUESTIONS:
                break
        if chosen:
            self._ask([(name, vector) for vector, name in chosen.items()])

    def answers(self) -> list[Probe]:
        """Return each question with the ids and scores of the five nearest records."""
        import numpy as np

        probes = []
        for (name, vector), best in zip(self._questions, self._best, strict=True):
            asked = np.frombuffer(vector, "<f4").astype(np.float64)
            exact = []
            for _, other_name, other in best:
                there = np.frombuffer(other, "<f4").astype(np.float64)
                score = float(asked @ there / (np.linalg.norm(asked) * np.linalg.norm(there)))
                exact.append((-round(score, 6), other_name))
            top = sorted(exact)[:ANSWERS]
            probes.append(
                Probe(
                    kind="vector",
                    table=self.target.table.name,
                    column=self.target.column,
                    question=name,
                    ids=tuple(other_name for _, other_name in top),
                    scores=tuple(-score for score, _ in top),
                )
            )
        return probes


def usable(vector: object) -> bool:
    """Say whether a value can be asked about: float32, finite, and not all zero."""
    import numpy as np

    if type(vector) is not bytes or not vector or len(vector) % _FLOAT32:
        return False
    length = float(np.linalg.norm(np.frombuffer(vector, "<f4").astype(np.float64)))
    return 0 < length < float("inf")


def nearest(
    con: "apsw.Connection", mapped: Sequence[tuple[Table, TableMap]], probes: tuple[Probe, ...] | None
) -> list[Nearest]:
    """Return what will answer the vector questions: those given, else some of the first column that has vectors."""
    targets: dict[tuple[str, str], Target] = {}
    for table, map_ in mapped:
        for column in map_.vectors:
            if column.lower() in {name.lower() for name in table.columns}:
                targets.setdefault((table.name, column), Target(table, map_.id, column))
    if probes is None:
        return next(([Nearest(target)] for target in targets.values() if _has_vectors(con, target)), [])
    wanted: dict[tuple[str, str, int], dict[str, bytes]] = {}
    for probe in probes:
        target = targets.get((probe.table, probe.column))
        vector = _vector_of(con, target, probe.question) if target is not None and probe.kind == "vector" else None
        if vector is not None:
            wanted.setdefault((probe.table, probe.column, len(vector)), {})[probe.question] = vector
    return [Nearest(targets[table, column], questions) for (table, column, _), questions in wanted.items()]


def _has_vectors(con: "apsw.Connection", target: Target) -> bool:
    column = quote(target.column)
    where = f"typeof({column}) = 'blob' AND length({column}) > 0 AND length({column}) % {_FLOAT32} = 0"
    return value(con, f"SELECT 1 FROM {quote(target.table.name)} WHERE {where} LIMIT 1") is not None


def _vector_of(con: "apsw.Connection", target: Target, record: str) -> bytes | None:
    """Return the first usable vector of a record, whose id may be stored as text, a number or bytes."""
    names: list[str | int | bytes] = [record]
    if re.fullmatch(r"-?\d{1,18}", record):
        names.append(int(record))
    if re.fullmatch(r"([0-9a-f]{2})*", record):
        names.append(bytes.fromhex(record))
    marks = ", ".join("?" * len(names))
    order = f" ORDER BY {target.table.order}" if target.table.order else ""
    sql = f"SELECT {quote(target.id)}, {quote(target.column)} FROM {quote(target.table.name)}"
    rows = query(con, f"{sql} WHERE {quote(target.id)} IN ({marks}){order}", tuple(names))
    return next((vector for name, vector in rows if id_of(name) == record and usable(vector)), None)


def hits(con: "apsw.Connection", probes: tuple[Probe, ...] | None, texts: Sequence[str]) -> list[Probe]:
    """Ask the full-text tables: the words given, else some of their own (or, where they keep no text, of `texts`)."""
    there = [name for name, module in virtual(con).items() if module == "fts5"]
    if probes is not None:
        asked = [(probe.table, probe.question) for probe in probes if probe.kind == "text"]
        found = {(table, word): _hits(con, table, word) for table, word in asked if table in there}
        return [probe for key in asked if (probe := found.get(key)) is not None]
    chosen = []
    for table in there[:_FTS_TABLES]:
        for word in _words([*_texts_of(con, table), *texts])[:WORDS]:
            probe = _hits(con, table, word)
            if probe is not None and probe.ids:
                chosen.append(probe)
    return chosen


def _texts_of(con: "apsw.Connection", table: str) -> list[str]:
    import apsw

    try:
        rows = query(con, f"SELECT * FROM {quote(table)} ORDER BY rowid LIMIT {WORDS}")
    except (apsw.Error, UnicodeDecodeError):  # its content table is gone, or its text is no text: ask for other words
        return []
    return [" ".join(item for item in row if isinstance(item, str)) for row in rows]


def _words(texts: Sequence[str]) -> list[str]:
    """Return the longest word of each text: long words are rare ones, which say more and are quickly looked up."""
    longest = [max(_WORD.findall(text), key=len, default="") for text in texts]
    return list(dict.fromkeys(word for word in longest if word))


def _hits(con: "apsw.Connection", table: str, word: str) -> Probe | None:
    import apsw

    name = quote(table)
    sql = f"SELECT rowid, bm25({name}) FROM {name} WHERE {name} MATCH ? ORDER BY bm25({name}), rowid LIMIT {ANSWERS}"
    try:
        rows = query(con, sql, (f'"{word}"',))
    except apsw.Error:  # no answer: `check` says what ails the index
        return None
    ids, scores = tuple(str(row[0]) for row in rows), tuple(round(row[1], 6) for row in rows)
    return Probe(kind="text", table=table, column="", question=word, ids=ids, scores=scores)
