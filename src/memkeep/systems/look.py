"""A look at what lies in folders: files, databases and Lance tables, read once, changing nothing.

No database is opened or even sniffed in this process (opening and closing one cancels the locks of an agent that
shares the process): the SQLite engine inspects them in a child, all that are known at once, for a child takes 50 ms
to start. A file counts as a database by its ending, or when its size is a multiple of 512, as every SQLite file's
is (https://www.sqlite.org/fileformat.html), and the engine can read it. A folder `*.lance` with `_versions` in it is
a Lance table.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memkeep.engines.chroma_files import DATABASE
from memkeep.model import Part, is_url

if TYPE_CHECKING:
    from memkeep.engines.base import ServerInspection, ServerTable
    from memkeep.engines.lance import LanceInspection
    from memkeep.engines.sqlite import Inspection

DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3", ".db3")
SIDECAR_SUFFIXES = ("-wal", "-shm", "-journal")
PLAIN_SUFFIXES = (
    ".md",
    ".txt",
    ".json",
    ".jsonl",
    ".log",
    ".png",
    ".jpg",
    ".jpeg",
    ".gz",
    ".zip",
    ".pdf",
    ".py",
    ".js",
)
COLLECTIONS = frozenset({"chroma", "qdrant-local"})  # engines whose parts are told by `Look.collections`
OWN_PREFIX = ".memkeep-"  # what an in-place restore has staged, parked or noted in a store
SKIP = frozenset({"node_modules", ".git", "backups", "cache", ".cache", "__pycache__", ".venv", "venv"})
DEPTH = 8


class Link(NamedTuple):
    """A symbolic link: what it says, and where that leads in the end."""

    target: str
    leads_to: Path


class Folder(NamedTuple):
    """What lies directly in a folder, by name, in ascending order."""

    files: dict[str, int]  # and their sizes in bytes
    folders: tuple[str, ...]
    tables: tuple[str, ...]  # Lance tables, which are not among the folders
    links: dict[str, Link]  # never followed
    others: tuple[str, ...]  # sockets, pipes and devices
    error: str = ""  # why it could not be read
    suspects: tuple[str, ...] = ()  # files that may be databases


class Look:
    """A cached, read-only view; `given` are the (resolved) paths that a person named.

    `queries` are asked of every database as it is inspected, so that `rows` has their answers at once.
    """

    def __init__(self, given: Iterable[Path] = (), queries: Iterable[str] = ()) -> None:
        self.given = frozenset(given)
        self._queries = tuple(dict.fromkeys(queries))
        self._folders: dict[Path, Folder] = {}
        self._candidates: dict[Path, None] = {}  # not yet inspected, in the order they were met
        self._databases: dict[Path, Inspection] = {}
        self._answers: dict[tuple[Path, str], list[tuple[Any, ...]]] = {}
        self._lance: dict[Path, LanceInspection | None] = {}
        self._servers: dict[str, ServerInspection] = {}

    def folder(self, path: Path) -> Folder:
        """Return what lies directly in a folder; nothing for one that is gone or is a file."""
        if path not in self._folders:
            self._folders[path] = _listed(path)
            self._candidates |= dict.fromkeys(path / name for name in self._folders[path].suspects)
        return self._folders[path]

    def survey(self, top: Path, *, depth: int | None = DEPTH, skip: frozenset[str] = SKIP) -> list[Path]:
        """Return a folder and the folders below it, parents first; `depth` None has no bound."""
        found, here = [top], [top]
        while here and (depth is None or depth > 0):
            here = [parent / name for parent in here for name in self._below(parent, skip)]
            found += here
            depth = None if depth is None else depth - 1
        for last in here:
            self.folder(last)
        return found

    def _below(self, parent: Path, skip: frozenset[str]) -> list[str]:
        return [name for name in self.folder(parent).folders if name not in skip and not name.startswith(OWN_PREFIX)]

    def server(self, url: str) -> "ServerInspection":
        """Return what a server has at a URL without secrets; raises `StoreError` as `ServerEngine.inspect` does."""
        if url not in self._servers:
            from memkeep.engines.catalog import server_engine

            self._servers[url] = server_engine(url).inspect(url)
        return self._servers[url]

    def collections(self, part: Part) -> "tuple[ServerTable, ...]":
        """Return the tables of a part in a server, or the collections that a folder's part has; none of other parts."""
        if is_url(part.path):
            return tuple(
                table for table in self.server(part.path).tables if not part.include or table.name in part.include
            )
        if part.engine == "qdrant-local":
            from memkeep.engines import qdrant_local

            file = Path(part.path)
            self.ask({file: [qdrant_local.COUNT, qdrant_local.SAMPLE]})
            counted, some = self.rows(file, qdrant_local.COUNT), self.rows(file, qdrant_local.SAMPLE)
            return (qdrant_local.table(file, counted[0][0], some),) if counted else ()
        if part.engine == "chroma":
            from memkeep.engines import chroma

            file = Path(part.path) / DATABASE
            self.ask({file: [chroma.COUNTS, chroma.KEYS]})
            return chroma.tables(self.rows(file, chroma.COUNTS), self.rows(file, chroma.KEYS))
        return ()

    def is_database(self, file: Path) -> bool:
        """Say whether a file is to be treated as a database: by its ending, whatever is in it, or by its content."""
        return file.suffix.lower() in DATABASE_SUFFIXES or self.database(file) is not None

    def database(self, file: Path) -> "Inspection | None":
        """Return what the SQLite engine says of a file; None when it is no readable database."""
        if file in self._candidates:
            self._inspect()
        inspection = self._databases.get(file)
        return inspection if inspection is not None and inspection.readable else None

    def columns(self, file: Path) -> dict[str, list[str]]:
        """Return the tables of a database and their columns; empty when it is none."""
        inspection = self.database(file)
        return dict(inspection.tables) if inspection else {}

    def rows(self, file: Path, query: str) -> list[tuple[Any, ...]]:
        """Return what a database answers to a query; no rows when it can't, or is none."""
        if self.database(file) is not None and (file, query) not in self._answers:
            self.ask({file: [query]})
        return self._answers.get((file, query), [])

    def ask(self, wanted: Mapping[Path, Sequence[str]]) -> None:
        """Ask several databases several queries at once, as far as they were not asked yet; `rows` has the answers."""
        from memkeep.engines import sqlite

        readable = [file for file in wanted if self.database(file) is not None]
        asked = {file: [query for query in wanted[file] if (file, query) not in self._answers] for file in readable}
        files = [file for file in readable if asked[file]]
        if files:
            for file, inspection in sqlite.inspect(files, asked).items():
                self._keep(file, inspection, asked[file])

    def lance(self, table: Path) -> "LanceInspection | None":
        """Return what the Lance engine says of a table; None when it can't be read."""
        if table not in self._lance:
            from memkeep.engines import lance

            self._lance[table] = lance.inspect(table)
        return self._lance[table]

    def is_table(self, path: Path) -> bool:
        """Say whether a path is a Lance table's folder."""
        return path.name.endswith(".lance") and (path / "_versions").is_dir()

    def _inspect(self) -> None:
        from memkeep.engines import sqlite

        files = list(self._candidates)
        self._candidates.clear()
        for file, inspection in sqlite.inspect(files, {file: list(self._queries) for file in files}).items():
            self._databases[file] = inspection
            self._keep(file, inspection, self._queries)

    def _keep(self, file: Path, inspection: "Inspection", queries: Sequence[str]) -> None:
        for query, rows in zip_longest(queries, inspection.results, fillvalue=()):
            self._answers[file, str(query)] = list(rows)


def is_sidecar(name: str, beside: Mapping[str, int]) -> bool:
    """Say whether a file belongs to a database: `x-wal`, `x-shm` or `x-journal` of an `x` that is or was one."""
    for suffix in SIDECAR_SUFFIXES:
        base = name.removesuffix(suffix)
        if base != name and (base in beside or Path(base).suffix.lower() in DATABASE_SUFFIXES):
            return True
    return False


def _may_be_database(name: str, size: int) -> bool:
    lower = name.lower()
    if size > 0 and size % 512 == 0:
        return not lower.endswith((*PLAIN_SUFFIXES, *SIDECAR_SUFFIXES))
    return lower.endswith(DATABASE_SUFFIXES)


def _listed(path: Path) -> Folder:
    files: dict[str, int] = {}
    folders, tables, others = [], [], []
    links: dict[str, Link] = {}
    error = ""
    try:
        with os.scandir(path) as listing:
            for entry in sorted(listing, key=lambda each: each.name):
                if entry.is_symlink():
                    links[entry.name] = Link(str(Path(entry.path).readlink()), Path(os.path.realpath(entry.path)))
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # it went away between listing and asking
                if stat.S_ISREG(status.st_mode):
                    files[entry.name] = status.st_size
                elif not stat.S_ISDIR(status.st_mode):
                    others.append(entry.name)
                elif entry.name.endswith(".lance") and Path(entry.path, "_versions").is_dir():
                    tables.append(entry.name)
                else:
                    folders.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass  # gone, or never a folder: nothing lies in it
    except OSError as failure:
        error = failure.strerror or str(failure)
    suspects = tuple(name for name, size in files.items() if _may_be_database(name, size))
    return Folder(files, tuple(folders), tuple(tables), links, tuple(others), error, suspects)
