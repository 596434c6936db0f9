"""Recall questions to a column of vectors: the rows nearest to some rows' own vectors, by comparing with every row."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memkeep.engines.lance_probes import ANSWERS, QUESTIONS, Exhaustive
from memkeep.engines.postgres_tables import Table
from memkeep.engines.postgres_values import decoder
from memkeep.model import Probe, TableMap
from memkeep.records.groups import id_text

if TYPE_CHECKING:
    from memkeep.engines.postgres_rows import Row

_WIDTHS = {"vector": 4, "halfvec": 2}
_HEAD = 4  # bytes before a vector's elements


class Prober:
    """Questions to one column, and their answers. Squared L2 distance; ties go to the smaller id."""

    def __init__(self, table: Table, map_: TableMap, column: str, given: tuple[Probe, ...] | None) -> None:
        """Begin; with `given`, their vectors must be looked up before a row is added."""
        names = [one.name for one in table.others]
        self.table = table
        self.column = column
        self.id = map_.id
        self._given = given
        self._place = [one.name for one in table.vectors].index(column)
        self._width = _WIDTHS[table.vectors[self._place].kind]
        self._id = names.index(map_.id)
        one = table.others[self._id]
        self._read = decoder(one.kind, as_text=one.form == "text")
        self._search: Exhaustive | None = None
        self._dims = 0

    @property
    def questions(self) -> dict[str, Any]:
        """The vectors that are asked for, float32, by the id of the row that has them."""
        return self._search.questions if self._search is not None else {}

    def look_up(self, folder: Path) -> None:
        """Find the vectors of the questions that were given."""
        from memkeep.engines.postgres_rows import rows

        wanted = {probe.question for probe in self._given or ()}
        found: dict[str, Any] = {}
        for row in rows(self.table, folder) if wanted else ():
            name = self._name(row)
            if name in wanted and name not in found and (vector := self._usable(row)) is not None:
                found[name] = vector
                if len(found) == len(wanted):
                    break
        self._ask(found)

    def add(self, batch: "list[Row]") -> None:
        """Take in some rows; questions are chosen from the first that have vectors, unless they were given."""
        import numpy as np

        if self._search is None and self._given is None:
            self._choose(batch)
        if self._search is None:
            return
        size = _HEAD + self._dims * self._width
        near = [(row, vector) for row in batch if (vector := row.vectors[self._place]) is not None]
        near = [(row, vector) for row, vector in near if len(vector) == size]
        if near:
            raw = np.frombuffer(b"".join([vector for _, vector in near]), np.uint8).reshape(len(near), size)
            block = raw[:, _HEAD:].view(f">f{self._width}").astype(np.float32)
            self._search.add(_Names([row for row, _ in near], self._name), block, None)

    def answers(self) -> list[Probe]:
        """Return the questions, each with the ids and distances of the five nearest; those given are all there."""
        found = self._search.answers() if self._search is not None else {}
        if self._given is not None:
            found = {probe.question: found.get(probe.question, []) for probe in self._given}
        return [self._probe(question, near) for question, near in found.items()]

    def _probe(self, question: str, near: list[tuple[float, str]]) -> Probe:
        top = sorted((round(score, 6), name) for score, name in near)[:ANSWERS]
        return Probe(
            kind="vector",
            table=self.table.full,
            column=self.column,
            question=question,
            ids=tuple(name for _, name in top),
            scores=tuple(score for score, _ in top),
        )

    def _choose(self, batch: "list[Row]") -> None:
        chosen: dict[str, Any] = {}
        for row in batch:
            vector = self._usable(row)
            if vector is not None and len(vector) == len(next(iter(chosen.values()), vector)):
                chosen.setdefault(self._name(row), vector)
            if len(chosen) == QUESTIONS:
                break
        self._ask(chosen)

    def _ask(self, questions: dict[str, Any]) -> None:
        if questions:
            self._dims = len(next(iter(questions.values())))
            self._search = Exhaustive({name: one for name, one in questions.items() if len(one) == self._dims})

    def _usable(self, row: "Row") -> Any | None:
        import numpy as np

        data = row.vectors[self._place]
        if data is None:
            return None
        vector = np.frombuffer(data, f">f{self._width}", offset=_HEAD).astype(np.float32)
        return vector if np.isfinite(vector).all() and vector.any() else None

    def _name(self, row: "Row") -> str:
        data = row.fields[self._id]
        return "" if data is None else id_text(self._read(data))


class _Names(Sequence[str]):
    """The ids of some rows, read when they are asked for: those of a few of many."""

    def __init__(self, rows: "Sequence[Row]", name: "Callable[[Row], str]") -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        return self._name(self._rows[at])


def prober(table: Table, maps: tuple[TableMap, ...], probes: tuple[Probe, ...] | None) -> Prober | None:
    """Return what asks a table: the questions given for it, or some of its own; None when there is nothing to ask."""
    names = [column.name for column in table.vectors]
    for map_ in maps:
        for column in map_.vectors or names:
            given = (
                None
                if probes is None
                else tuple(
                    one for one in probes if one.kind == "vector" and one.table == table.full and one.column == column
                )
            )
            if column in names and given != ():
                return Prober(table, map_, column, given)
    return None
