"""Recall questions asked of a collection's image: the nearest points to stored vectors, over every point.

The scores are the server's: the dot product for Cosine and Dot, the distance for Euclid and Manhattan. A live server
gives the same answers, within the rounding of float32, when it is asked with `exact: true`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from memkeep.engines.qdrant_edge import Point
from memkeep.engines.qdrant_http import Server
from memkeep.engines.recall import Answers
from memkeep.model import Probe
from memkeep.records.groups import id_text

QUESTIONS = 4
ANSWERS = 5
_KEPT = 32
_RISING = {"Euclid", "Manhattan"}  # of which the smallest is the best


def column(name: str) -> str:
    """Return the column that a vector is called by."""
    return f"vector.{name}" if name else "vector"


class Asker:
    """The questions to one collection, and their answers over all points that are handed in."""

    def __init__(self, table: str, metrics: dict[str, str], asked: Sequence[tuple[str, Point]]) -> None:
        """Begin; `metrics` is the distance of each plain vector, `asked` the vector and the point of each question."""
        import numpy as np

        self._table = table
        self._questions = [
            (name, metrics[name], id_text(point.id), np.frombuffer(vector, "<f4"))
            for name, point in asked
            if name in metrics and isinstance(vector := point.vectors.get(name), bytes)
        ]
        self._best: list[list[tuple[float, str, Any]]] = [[] for _ in self._questions]
        self._bounds = [float("inf")] * len(self._questions)

    def add(self, points: Sequence[Point]) -> None:
        """Take in a batch; the vectors that are there only by their digests must come by `add_block`."""
        import numpy as np

        for name in dict.fromkeys(name for name, *_ in self._questions):
            there = [(id_text(p.id), v) for p in points if isinstance(v := p.vectors.get(name), bytes)]
            if there:
                rows = np.frombuffer(b"".join(v for _, v in there), "<f4").reshape(len(there), -1)
                self.add_block(name, [one for one, _ in there], rows)

    def add_block(self, name: str, ids: Sequence[str], block: Any) -> None:
        """Take in the vectors of one name of some points, float32 (n, size)."""
        import numpy as np

        for number, (asked, metric, _, question) in enumerate(self._questions):
            if asked != name or not len(block):
                continue
            with np.errstate(all="ignore"):
                costs = _costs(metric, block, question)
            best = self._best[number]
            for at in np.flatnonzero(costs < self._bounds[number]).tolist():
                best.append((float(costs[at]), ids[at], block[at].copy()))
            if len(best) > _KEPT:
                best.sort(key=lambda item: item[0])
                del best[_KEPT:]
                self._bounds[number] = best[-1][0]

    def ask(self, server: Server) -> Answers:
        """Return what the server's own search gives. Raises `StoreError`."""
        found = {}
        for name, _, question, vector in self._questions:
            body = {"query": vector.tolist(), "limit": ANSWERS} | ({"using": name} if name else {})
            near = server.send("POST", f"{server.where.path}/points/query", body)["points"]
            found[self._table, column(name), question] = [id_text(one["id"]) for one in near]
        return found

    def answers(self, given: tuple[Probe, ...] | None) -> tuple[Probe, ...]:
        """Return the questions with their answers, worked out again in double precision; all of those given."""
        import numpy as np

        found = {}
        for (name, metric, question, asked), best in zip(self._questions, self._best, strict=True):
            wide = asked.astype(np.float64)
            exact = [(float(_costs(metric, there[None].astype(np.float64), wide)[0]), one) for _, one, there in best]
            near = sorted({(round(cost, 6), one) for cost, one in exact})[:ANSWERS]
            sign = 1 if metric in _RISING else -1
            found[column(name), question] = Probe(
                kind="vector",
                table=self._table,
                column=column(name),
                question=question,
                ids=tuple(one for _, one in near),
                scores=tuple(sign * cost for cost, _ in near),
                metric=metric,
            )
        if given is None:
            return tuple(probe for probe in found.values() if probe.ids)
        return tuple(
            found.get((probe.column, probe.question), _unanswered(probe))
            for probe in given
            if probe.table == self._table
        )


def _costs(metric: str, block: Any, question: Any) -> Any:
    """Return how far each row is, smaller for nearer."""
    import numpy as np

    if metric == "Euclid":
        return np.sqrt(np.square(block - question).sum(axis=1))
    if metric == "Manhattan":
        return np.abs(block - question).sum(axis=1)
    return -np.vecdot(block, question)


def _unanswered(probe: Probe) -> Probe:
    return msgspec.structs.replace(probe, ids=(), scores=())
