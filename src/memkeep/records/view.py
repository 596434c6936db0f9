"""Records as people see them: portable field names over the native columns that are stored."""

from collections.abc import Iterator
from typing import Any

from memkeep.errors import DamagedError
from memkeep.model import TableMap
from memkeep.records.groups import decode, id_text


def rows_by_id(table: TableMap, data: bytes) -> dict[str, dict[str, Any]]:
    """Return the records of a stored group: id -> {field: value}, mapped columns under their portable names.

    Raw values are kept as the product wrote them. Rows that share an id get `#2`, `#3` ... behind it.
    Raises `DamagedError`.
    """
    columns, rows = decode(data)
    if not rows:
        return {}
    portable = {column: field for field, column in table.fields.items()}
    if table.id not in columns:
        message = f"a group of {table.collection} lacks the column {table.id}"
        raise DamagedError(message)
    key = columns.index(table.id)
    names = [portable.get(column, column) for column in columns]
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        record = unique(id_text(row[key]), found)
        found[record] = {
            name: value for position, (name, value) in enumerate(zip(names, row, strict=True)) if position != key
        }
    return found


def unique(record: str, taken: dict[str, Any]) -> str:
    """Return the id, with a number behind it when it is taken."""
    if record not in taken:
        return record
    number = 2
    while f"{record}#{number}" in taken:
        number += 1
    return f"{record}#{number}"


def shown_id(table: TableMap, record: str) -> str:
    """Return the id under which a record is shown: bare in a primary collection, else with the collection's name."""
    return record if table.primary else f"{table.collection}:{record}"


def texts(fields: dict[str, Any]) -> Iterator[str]:
    """Yield all text in a record."""
    for value in fields.values():
        if isinstance(value, str):
            yield value


def changed_fields(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    """Return {field: [before, after]} for the fields that differ; a field that was not there is None."""
    names = list(dict.fromkeys((*before, *after)))
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
