"""Delete rows of a live Lance table, in one commit of one new version.

Which rows go is found out first. Older versions have them until the product, or Lance, cleans those up.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memkeep.engines.lance_merge import dataset, meant
from memkeep.engines.merging import plain_id
from memkeep.engines.rows import Deleted, Gone


class LanceDelete:
    """What a table is to lose."""

    def __init__(self, live: Path, gone: Sequence[Gone]) -> None:
        """Look at the live table; nothing is changed yet. Raises `StoreError` when it can't be read."""
        self._live = live
        self._table = dataset(live)
        named = [one for one in gone if one.table == live.stem]
        self._where = " OR ".join(where for one in named for where in self._conditions(one))
        with meant(live, "can't be read"):
            rows = self._table.count_rows(self._where) if self._where else 0
        self.result = Deleted(tables={live.stem: rows} if named else {})

    def commit(self) -> None:
        """Make the next version."""
        if any(self.result.tables.values()):
            with meant(self._live, "could not be written"):
                self._table.delete(self._where)

    def _conditions(self, gone: Gone) -> list[str]:
        """Return for each column the condition that names the values which are there."""
        found = []
        wanted = set(gone.ids)
        for column in gone.columns:
            if column in self._table.schema.names:
                with meant(self._live, "can't be read"):
                    values = self._table.to_table([column]).column(0).to_pylist()
                spelled = {one for one in values if one is not None and _spelled(one, plain=not gone.spelled) in wanted}
                if spelled:
                    found.append(f"`{column}` IN ({', '.join(sorted(map(_literal, spelled)))})")
        return found


def _spelled(value: Any, *, plain: bool) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return plain_id(text) if plain else text


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"X'{value.hex()}'" if isinstance(value, bytes) else str(value)
