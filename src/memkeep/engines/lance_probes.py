"""Recall questions asked of a Lance table: the nearest neighbours of stored vectors, the best hits of words.

The store's own engine answers, through its index where there is one. Only for a large column without an index are the
distances worked out here, while the rows are read: the engine would do the same (compare with every row), but takes
three times the memory. Ties are broken by id, so that the answer does not depend on how the table is laid out.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memkeep.engines.lance_manifest import Manifest
from memkeep.model import Probe, TableMap
from memkeep.records.groups import id_text

if TYPE_CHECKING:
    import numpy as np

QUESTIONS = 4
WORDS = 2
ANSWERS = 5
LARGE = 64 << 20  # bytes of vectors without an index, above which the engine is not asked
_FETCHED = 16
_KEPT = 32
_WORD = re.compile(r"[^\W\d_]{4,30}")
_TEXT = {"string", "large_string"}


class Exhaustive:
    """The nearest rows of one column to some questions, over every row that is handed in. Squared L2 distance."""

    def __init__(self, questions: dict[str, "np.ndarray[Any, Any]"]) -> None:
        """Begin; `questions` are the asked ids and their vectors, float32."""
        import numpy as np

        self.questions = questions
        self._asked = [(vector, np.float32(np.vecdot(vector, vector))) for vector in questions.values()]
        self._best: list[list[tuple[float, str, Any]]] = [[] for _ in questions]
        self._bounds = [float("inf")] * len(questions)

    def add(self, ids: Sequence[object], vectors: "np.ndarray[Any, Any]", valid: "np.ndarray[Any, Any] | None") -> None:
        """Take in a batch; `vectors` is (n, dims)."""
        import numpy as np

        block = vectors.astype(np.float32, copy=False)
        with np.errstate(all="ignore"):  # what is no number is near to nothing
            lengths = np.vecdot(block, block)  # row by row: a matrix product would keep other cores busy waiting
            if valid is not None:
                lengths[~valid] = np.nan
            near = [lengths - 2 * np.vecdot(block, vector) + length for vector, length in self._asked]
        for q, best in enumerate(self._best):
            for at in np.flatnonzero(near[q] < self._bounds[q]).tolist():
                best.append((float(near[q][at]), id_text(ids[at]), vectors[at].copy()))
            if len(best) > _KEPT:
                best.sort(key=lambda item: item[0])
                del best[_KEPT:]
                self._bounds[q] = best[-1][0]

    def answers(self) -> dict[str, list[tuple[float, str]]]:
        """Return for each question the distances and ids of the nearest, worked out again in double precision."""
        import numpy as np

        found = {}
        for (question, asked), best in zip(self.questions.items(), self._best, strict=True):
            exact = [
                (float(np.square(asked.astype(np.float64) - there.astype(np.float64)).sum()), name)
                for _, name, there in best
            ]
            found[question] = sorted(exact)[:_FETCHED]
        return found


class Prober:
    """The questions to one table, and their answers."""

    def __init__(
        self, dataset: Any, manifest: Manifest, table: str, map_: TableMap | None, given: tuple[Probe, ...] | None
    ) -> None:
        """Choose the questions, or take those given for this table, and look up their vectors."""
        self._dataset = dataset
        self._manifest = manifest
        self._table = table
        self._given = given
        self._id = map_.id if map_ is not None else ""
        self._text = map_.fields.get("text", "text") if map_ is not None else ""
        mapped = [column for column in (map_.vectors if map_ is not None else ()) if column in manifest.vectors]
        self._columns = mapped or list(manifest.vectors)
        self._vectors: dict[str, dict[str, Any]] = {}
        if self._askable():
            for column, ids in self._wanted().items():
                self._vectors[column] = self._look_up(column, ids)
        self._scans = {
            column: Exhaustive(asked)
            for column, asked in self._vectors.items()
            if asked and not self._indexed(column) and self._bytes(column) > LARGE
        }

    @property
    def id(self) -> str:
        """The column whose values `add` wants as ids."""
        return self._id

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose vectors `add` wants."""
        return tuple(self._scans)

    def add(
        self,
        column: str,
        ids: Sequence[object],
        vectors: "np.ndarray[Any, Any]",
        valid: "np.ndarray[Any, Any] | None",
    ) -> None:
        """Take in a batch of a column's vectors, (n, dims)."""
        self._scans[column].add(ids, vectors, valid)

    def answers(self) -> tuple[Probe, ...]:
        """Ask, and return the questions with their answers; questions given are all there, answered or not."""
        found = [
            self._probe("vector", column, question, [(score, name) for score, name in near])
            for column, asked in self._vectors.items()
            if asked
            for question, near in self._nearest(column, asked).items()
        ]
        found += [
            self._probe("text", column, word, [(-score, name) for score, name in self._hits(column, word)], sign=-1)
            for column, word in self._questions_of_words()
        ]
        if self._given is None:
            return tuple(probe for probe in found if probe.ids)
        by_key = {(probe.kind, probe.column, probe.question): probe for probe in found}
        return tuple(
            by_key.get((probe.kind, probe.column, probe.question), _unanswered(probe))
            for probe in self._given
            if probe.table == self._table
        )

    def _askable(self) -> bool:
        return self._manifest.columns.get(self._id, "") in {*_TEXT, "int32", "int64", "uint32", "uint64"}

    def _wanted(self) -> dict[str, list[str]]:
        """Return the ids to ask about, by column."""
        if self._given is not None:
            wanted: dict[str, list[str]] = {}
            for probe in self._given:
                if probe.kind == "vector" and probe.table == self._table and probe.column in self._manifest.vectors:
                    wanted.setdefault(probe.column, []).append(probe.question)
            return wanted
        rows = self._manifest.rows
        if not rows or not self._columns:
            return {}
        places = sorted({i * (rows - 1) // max(1, QUESTIONS - 1) for i in range(QUESTIONS)})
        ids = self._dataset.take(places, columns=[self._id])[self._id].to_pylist()
        names = list(dict.fromkeys(id_text(name) for name in ids if name is not None))
        each = max(1, QUESTIONS // len(self._columns))
        return dict.fromkeys(self._columns[:QUESTIONS], names[:each])

    def _look_up(self, column: str, names: Sequence[str]) -> dict[str, Any]:
        """Return the first usable vector of each id, float32."""
        import numpy as np

        text = self._manifest.columns[self._id] in _TEXT
        known = [name for name in names if text or re.fullmatch(r"-?\d{1,20}", name)]
        if not known:
            return {}
        words = ", ".join("'" + name.replace("'", "''") + "'" if text else name for name in known)
        scanner = self._dataset.scanner(
            columns=[self._id, column], filter=f"{_quoted(self._id)} IN ({words})", late_materialization=True
        )
        found: dict[str, Any] = {}
        for batch in scanner.to_batches():
            for name, vector in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                if id_text(name) in found or vector is None or None in vector:
                    continue
                asked = np.asarray(vector, np.float32)
                if np.isfinite(asked).all():
                    found[id_text(name)] = asked
        return {name: found[name] for name in known if name in found}

    def _nearest(self, column: str, asked: dict[str, Any]) -> dict[str, list[tuple[float, str]]]:
        if column in self._scans:
            return self._scans[column].answers()
        import numpy as np

        names, columns = list(asked), [self._id, "_distance"]
        if self._indexed(column) or len(names) == 1:
            ask = self._dataset.to_table
            return {
                name: _scored(ask(columns=columns, nearest=_nearest_to(column, asked[name])), self._id, "_distance")
                for name in names
            }
        together = _nearest_to(column, np.stack([asked[name] for name in names]))  # all in one pass over the rows
        table = self._dataset.to_table(columns=columns, nearest=together)
        questions = table["query_index"].to_numpy()
        return {
            name: _scored(table.filter(questions == which), self._id, "_distance") for which, name in enumerate(names)
        }

    def _questions_of_words(self) -> list[tuple[str, str]]:
        """Return what to ask the full-text indices: column and word."""
        if self._given is not None:
            return [
                (probe.column, probe.question)
                for probe in self._given
                if probe.kind == "text" and probe.table == self._table and probe.column in self._full_text()
            ]
        columns = self._full_text()
        rows = self._manifest.rows
        if not columns or not rows or not self._askable():
            return []
        column = self._text if self._text in columns else columns[0]
        texts = self._dataset.take(sorted({0, rows // 2}), columns=[column])[column].to_pylist()
        words = [max(_WORD.findall(text or ""), key=len, default="") for text in texts]
        return [(column, word) for word in dict.fromkeys(words) if word][:WORDS]

    def _hits(self, column: str, word: str) -> list[tuple[float, str]]:
        query = {"columns": [column], "query": word}
        table = self._dataset.to_table(columns=[self._id, "_score"], full_text_query=query, limit=_FETCHED)
        return _scored(table, self._id, "_score")

    def _full_text(self) -> list[str]:
        names = self._manifest.field_names
        fields = [field for index in self._manifest.indices if index.kind == "InvertedIndex" for field in index.fields]
        return [names[field] for field in dict.fromkeys(fields) if field in names]

    def _indexed(self, column: str) -> bool:
        names = self._manifest.field_names
        return any(names.get(field) == column for index in self._manifest.indices for field in index.fields)

    def _bytes(self, column: str) -> int:
        width = 8 if ":double:" in self._manifest.columns[column] else 4
        return self._manifest.rows * self._manifest.vectors[column] * width

    def _probe(self, kind: Any, column: str, question: str, near: list[tuple[float, str]], sign: int = 1) -> Probe:
        top = _clear(near)
        return Probe(
            kind=kind,
            table=self._table,
            column=column,
            question=question,
            ids=tuple(name for _, name in top),
            scores=tuple(sign * score for score, _ in top),
        )


def _clear(near: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the five best. Where more are equally good than were fetched, it is chance which ones: leave them out."""
    near = sorted((round(score, 6), name) for score, name in near)
    if len(near) == _FETCHED and near[ANSWERS - 1][0] == near[-1][0]:
        return [item for item in near if item[0] < near[-1][0]]
    return near[:ANSWERS]


def _nearest_to(column: str, vectors: Any) -> dict[str, Any]:
    return {"column": column, "q": vectors, "k": _FETCHED}


def _scored(table: Any, id_column: str, score: str) -> list[tuple[float, str]]:
    names, scores = table[id_column].to_pylist(), table[score].to_pylist()
    return [(value, id_text(name)) for name, value in zip(names, scores, strict=True) if value is not None]


def _quoted(column: str) -> str:
    return "`" + column + "`"


def _unanswered(probe: Probe) -> Probe:
    return Probe(kind=probe.kind, table=probe.table, column=probe.column, question=probe.question, ids=(), scores=())
