"""Comma-separated values: `memories.csv`, `relationships.csv`, and `collections.csv` for what is beside the memories.

RFC 4180 in UTF-8, a column for each field of a record; the first are those of Thanos's guide. Lists, objects and
vectors are JSON as in `objects`. An empty cell is no value, or the empty text where a record must have one. What a cell
can't hold (the empty text where there may be none, letters that are no Unicode, numbers that are none) is in `more`,
the last column: a JSON object, `{}` left empty, whose values come before those of the cells.

A program for tables takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a line's end for a formula and would
run what somebody told an agent to remember. Such a text, and one with apostrophes before it, gets one apostrophe in
front; reading takes it away. Numbers are left alone.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from memkeep.records.formats.base import Source
from memkeep.records.formats.lines import files_of, fits_files, records_of, write_sections
from memkeep.records.formats.objects import (
    RECORD_COLUMNS,
    RELATIONSHIP_COLUMNS,
    Section,
    Wire,
    dump,
    from_wire,
    load,
    to_wire,
)
from memkeep.records.plain import to_plain
from memkeep.records.readers.base import Read
from memkeep.records.record import Portable

BUFFER = 1 << 20
MORE = "more"
VECTORS = ("embedding", "embedding_model", "vectors")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_WHOLE = {
    "memories": frozenset(("id", "content", "collection", "system")),
    "collections": frozenset(("id", "content", "collection", "system")),
    "relationships": frozenset(("source_id", "target_id", "rel_type", "collection", "system")),
}
"""Texts that are never missing: an empty cell is the empty text."""
_JSON = frozenset(("metadata", "tags", "native", "embedding", "vectors", MORE))
_NUMBERS = frozenset(("heat", "importance", "confidence", "strength", "access_count"))


name = "csv"
lossless = True


def losses(made: Portable) -> Iterable[str]:  # noqa: ARG001 - the contract's signature
    """Return nothing: it keeps all."""
    return ()


def write(source: Source, folder: Path) -> None:
    """Write the files."""
    write_sections(folder, "csv", source.records(), source.relationships(), _opened)


def fits(path: Path) -> bool:
    """Say whether the names are those of this format."""
    return fits_files(path, "csv")


def read(path: Path) -> Iterator[Read]:
    """Yield what the files hold."""
    for file, section in files_of(path, "csv"):
        yield from records_of(file, _rows(file, section), partial(_record, section))


def _columns(section: Section) -> tuple[str, ...]:
    if section == "relationships":
        return (*RELATIONSHIP_COLUMNS, MORE)
    return (*RECORD_COLUMNS, *VECTORS, MORE)


@contextmanager
def _opened(path: Path, section: Section) -> Iterator[Callable[[Portable], None]]:
    columns = _columns(section)
    always = {"collection": "relationships" if section == "relationships" else "memories"}
    with path.open("w", encoding="utf-8", newline="", buffering=BUFFER) as file:
        file.write(_line(columns))

        def write(made: Portable) -> None:
            file.write(_line(_cells(always | to_wire(made), columns, _WHOLE[section])))

        yield write


def _cells(wire: Wire, columns: tuple[str, ...], whole: frozenset[str]) -> list[str]:
    more: Wire = {
        name: "" for name, value in wire.items() if value.__class__ is str and not value and name not in whole
    }
    cells = [_cell(name, wire[name], more) if name in wire else "" for name in columns]
    if more:
        cells[-1] = dump(more).decode()
    return cells


def _line(cells: Iterable[str]) -> str:
    """Return a row; the library's writer goes through long cells letter by letter, which takes four times as long."""
    quoted = (
        '"' + cell.replace('"', '""') + '"' if "," in cell or '"' in cell or "\n" in cell or "\r" in cell else cell
        for cell in cells
    )
    return ",".join(quoted) + "\r\n"


def _cell(name: str, value: Any, more: Wire) -> str:
    """Return the text of a cell; what it would not give back is added to `more`."""
    if isinstance(value, str):
        plain = to_plain(value)
        if plain is not value:
            more[name] = plain
            value = value.encode("utf-8", "replace").decode()
        return f"'{value}" if _FORMULA.match(value) else value
    if value is None:
        return ""
    if name in _JSON:
        return dump(to_plain(value) if name == "tags" else value).decode()
    if name in _NUMBERS and value.__class__ in (int, float):
        return repr(value)
    more[name] = value  # plain already
    return ""


def _rows(path: Path, section: Section) -> Iterator[tuple[int, dict[str, str] | ValueError]]:
    import csv
    import sys

    csv.field_size_limit(sys.maxsize)  # of all readers of the process, and there is no other way: a text may be long
    expected = {"id"} if section != "relationships" else {"source_id", "target_id", "rel_type"}
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.reader(file, strict=True)
        try:
            names = next(table, [])
            if not expected <= set(names):
                raise ValueError(f"it has no columns {', '.join(sorted(expected - set(names)))}")
            for cells in table:
                if len(cells) == len(names):
                    yield table.line_num, dict(zip(names, cells, strict=True))
                elif cells:
                    yield table.line_num, ValueError(f"{len(cells)} cells in {len(names)} columns")
        except csv.Error as error:
            raise ValueError(f"line {table.line_num}: {error}") from error


def _record(section: Section, row: dict[str, str]) -> Portable:
    whole = _WHOLE[section]
    wire = {name: _value(name, cell) for name, cell in row.items() if cell or name in whole}
    more: Wire = wire.pop(MORE, {})
    return from_wire(wire | more, section)


def _value(name: str, cell: str) -> Any:
    if name in _JSON:
        return load(cell.encode())
    if name in _NUMBERS:
        return int(cell) if cell.lstrip("-").isdecimal() else float(cell)
    return cell[1:] if cell[0:1] == "'" and _FORMULA.match(cell) else cell
