"""Made-up stores, and the one thing that must hold for every store: all that lies there is in a part or left out."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from memkeep.config import Config
from memkeep.model import Part, Store
from memkeep.systems.detect import discover

Find = Callable[..., list[Store]]
SIDECARS = ("-wal", "-shm", "-journal")


@pytest.fixture
def find(home: Path) -> Find:
    """Return `find(*paths, config=None, env={})`: the stores there, or with no paths those in the usual places."""

    def found(*paths: Path | str, config: Config | None = None, env: Mapping[str, str] | None = None) -> list[Store]:
        environ = {"HOME": str(home), **(env or {})}
        return discover([Path(path) for path in paths] or None, config=config, environ=environ)

    return found


FACTS = """
CREATE TABLE facts(id TEXT PRIMARY KEY, text TEXT NOT NULL, category TEXT NOT NULL, importance REAL, source TEXT,
  created_at INTEGER, decay_class TEXT, expires_at INTEGER, normalized_hash TEXT, tags TEXT, scope TEXT);
INSERT INTO facts(id, text, category, created_at, decay_class) VALUES('a', 'one', 'fact', 1, 'stable'),
  ('b', 'two', 'fact', 2, 'stable');
"""
INDEX = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files(path TEXT PRIMARY KEY, source TEXT, hash TEXT, mtime INTEGER, size INTEGER);
CREATE TABLE chunks(id TEXT PRIMARY KEY, path TEXT, source TEXT, start_line INTEGER, end_line INTEGER, hash TEXT,
  model TEXT, text TEXT, embedding TEXT, updated_at INTEGER);
INSERT INTO meta VALUES('memory_index_meta_v1', '{"model": "m1", "provider": "p1", "vectorDims": 8}');
"""
CELLS = """
CREATE TABLE mem_cells(id INTEGER PRIMARY KEY, scene TEXT, cell_type TEXT, salience REAL, content TEXT, source TEXT,
  embedding BLOB, access_count INTEGER, created_at TEXT, updated_at TEXT);
INSERT INTO mem_cells(scene, cell_type, content) VALUES('s', 'fact', 'one');
"""
LEGACY = ("id", "text", "vector", "importance", "category", "createdAt")
PRO = ("id", "text", "vector", "category", "scope", "importance", "timestamp", "metadata")


class Make:
    """Makes stores as small as they can be."""

    legacy, pro = LEGACY, PRO

    def database(self, path: Path, script: str = "CREATE TABLE t(x);") -> Path:
        """Make a database by these statements, and close it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.close()
        return path

    def table(self, path: Path, columns: Iterable[str], rows: int = 2) -> Path:
        """Make a Lance table with these columns; `vector` is of 4 float32."""
        import lance
        import pyarrow as pa

        values: dict[str, Any] = {}
        for column in columns:
            if column == "vector":
                vectors = [[float(row), 1.0, 2.0, 3.0] for row in range(rows)]
                values[column] = pa.array(vectors, pa.list_(pa.float32(), 4))
            elif column in {"importance", "createdAt", "timestamp", "cachedAt"}:
                values[column] = pa.array([1.7e12] * rows, pa.float64())
            else:
                values[column] = pa.array([f"{column} {row}" for row in range(rows)], pa.string())
        path.parent.mkdir(parents=True, exist_ok=True)
        lance.write_dataset(pa.table(values), path)
        return path

    def files(self, root: Path, *names: str) -> Path:
        """Make files that say their own names."""
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        return root

    def hybrid(self, folder: Path) -> Path:
        """Make a store of openclaw-hybrid-memory with two facts."""
        self.database(folder / "facts.db", FACTS)
        return folder

    def cells(self, path: Path) -> Path:
        """Make a store of oc-memory with one cell."""
        return self.database(path, CELLS)

    def core_index(self, path: Path) -> Path:
        """Make OpenClaw's index of before mid-2026."""
        return self.database(path, INDEX)

    def state_dir(self, path: Path, config: dict[str, Any] | str | None = None) -> Path:
        """Make a state folder with `openclaw.json` and a workspace of two notes."""
        self.files(path, "workspace/MEMORY.md", "workspace/memory/2026-11-20.md")
        (path / "openclaw.json").write_text(config if isinstance(config, str) else json.dumps(config or {}))
        return path


@pytest.fixture
def make() -> Make:
    """Return what makes stores."""
    return Make()


def holds(part: Part, path: Path) -> bool:
    """Say whether a part holds a file, going by its path, `include` and `exclude` alone."""
    own = Path(part.path)
    if part.engine == "sqlite":
        return path == own or any(str(path) == str(own) + end for end in SIDECARS)
    if path == own:
        return True
    if not path.is_relative_to(own) or part.engine == "lance":
        return path.is_relative_to(own)
    pieces = path.relative_to(own).parts
    names = ["/".join(pieces[:length]) for length in range(1, len(pieces) + 1)]
    if any(fnmatchcase(name, pattern) for name in names for pattern in part.exclude):
        return False
    return not part.include or any(fnmatchcase(names[-1], pattern) for pattern in part.include)


@pytest.fixture
def whereabouts() -> Callable[[Store], dict[str, list[str]]]:
    """Return `whereabouts(store)`: each file under its root, and the parts and omissions that it is in."""

    def placed(store: Store) -> dict[str, list[str]]:
        root = Path(store.root)
        found = {}
        for path in sorted(root.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            name = path.relative_to(root).as_posix()
            parts = [part.name for part in store.parts if holds(part, path)]
            left = [each.part for each in store.omitted if name == each.part or name.startswith(f"{each.part}/")]
            found[name] = parts + [f"omitted: {part}" for part in left]
        return found

    return placed


@pytest.fixture
def complete(whereabouts: Callable[[Store], dict[str, list[str]]]) -> Callable[..., None]:
    """Return `complete(store, other=())`: fails unless every file is in exactly one place, but for those of others."""

    def checked(store: Store, other: Iterable[str] = ()) -> None:
        names = [part.name for part in store.parts]
        assert len(names) == len(set(names))
        collections = [each.collection for part in store.parts for each in part.maps]
        assert len(collections) == len(set(collections))
        for name, places in whereabouts(store).items():
            theirs = any(fnmatchcase(name, pattern) for pattern in other)
            assert len(places) == (0 if theirs else 1), f"{name} is in {places}"

    return checked
