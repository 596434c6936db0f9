"""What is made for records to go into, so that it can be taken away when they do not go in, or later by a person."""

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from memkeep.engines import logins, postgres_new, qdrant_http, qdrant_new
from memkeep.errors import StoreError

_SIDECARS = ("-wal", "-shm", "-journal")


class Made(NamedTuple):
    """One thing that was made."""

    what: str
    undo: str  # the command that takes it away, and what was put into it; "" of a file
    remove: Callable[[], bool]  # takes it away while it has nothing else in it; says whether it did


class Making:
    """Notes what is made, in order."""

    def __init__(self) -> None:
        self._made: list[Made] = []
        self._tops: list[Path] = []  # what is made in folders that were there before

    @property
    def undo(self) -> str | None:
        """The command that takes away all that was made; None when that is nothing."""
        served = [one.undo for one in reversed(self._made) if one.undo]
        filed = [f"rm -r {shlex.join(map(str, self._tops))}"] if self._tops else []
        return " && ".join((*served, *filed)) or None

    def table(self, url: str, table: str, dims: int, *, there: bool) -> None:
        """Make a table of pgvector in a database, unless an empty one is `there`."""
        word = "TRUNCATE" if there else "DROP TABLE"
        undo = f"psql {shlex.quote(url)} -c {shlex.quote(f'{word} {table}')}"
        if not there:
            postgres_new.create_vectors(url, table, dims)
        self._made.append(Made(f"{table} in {url}", undo, lambda: there or postgres_new.drop_empty(url, table)))

    def collection(self, url: str, settings: dict[str, Any], *, there: bool) -> None:
        """Make a collection in a Qdrant server, unless an empty one is `there`."""
        where = qdrant_http.address(url)
        key = ' -H "api-key: $QDRANT_API_KEY"' if logins.password(url, os.environ, qdrant_http.VARIABLE) else ""
        undo = f"curl -X DELETE{key} {shlex.quote(where.base + where.path)}"
        if there:
            every = "-H 'content-type: application/json' -d '{\"filter\": {}}'"
            undo = f"curl -X POST{key} {every} {shlex.quote(f'{where.base}{where.path}/points/delete')}"
        else:
            qdrant_new.create(url, settings)
        self._made.append(Made(url, undo, lambda: there or qdrant_new.drop_empty(url)))

    @contextmanager
    def path(self, path: Path) -> Iterator[None]:
        """Note a file or folder that is made meanwhile, with the folders above it that were not there."""
        missing = [one for one in (path, *path.parents) if not one.exists()]
        yield
        if missing:
            if not any(top in path.parents for top in self._tops):
                self._tops.append(missing[-1])
            self._made.append(Made(str(path), "", lambda: _gone(path, missing[1:])))

    def take_back(self) -> list[str]:
        """Take away what was made, the last first; return what had to stay."""
        left = []
        for one in reversed(self._made):
            try:
                gone = one.remove()
            except (StoreError, OSError):
                gone = False
            if not gone:
                left.append(one.what)
        self._made.clear()
        return left


def _gone(path: Path, above: list[Path]) -> bool:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        for name in (path.name, *(f"{path.name}{end}" for end in _SIDECARS)):
            path.with_name(name).unlink(missing_ok=True)
    for folder in above:
        if any(folder.iterdir()):
            break
        folder.rmdir()
    return True
