"""The engines by name, and those of servers by the scheme of a URL. A new engine is one module and one line here."""

from importlib import import_module
from typing import cast
from urllib.parse import urlsplit

from memkeep.engines.base import Engine, ServerEngine
from memkeep.errors import UnsupportedError, UsageError
from memkeep.model import is_url

_ENGINES = {
    "chroma": ("memkeep.engines.chroma", "ChromaEngine"),
    "files": ("memkeep.engines.files", "FilesEngine"),
    "lance": ("memkeep.engines.lance", "LanceEngine"),
    "postgres": ("memkeep.engines.postgres", "PostgresEngine"),
    "qdrant": ("memkeep.engines.qdrant", "QdrantEngine"),
    "qdrant-local": ("memkeep.engines.qdrant_local", "QdrantLocalEngine"),
    "sqlite": ("memkeep.engines.sqlite", "SqliteEngine"),
}
SCHEMES = {"postgresql": "postgres", "qdrant": "qdrant", "qdrants": "qdrant"}


def engine(name: str) -> Engine:
    """Return an engine; `UnsupportedError` for a name that a newer memkeep wrote."""
    if name not in _ENGINES:
        raise UnsupportedError(f"this memkeep has no engine called {name}", hint="pip install --upgrade memkeep")
    module, cls = _ENGINES[name]
    made: Engine = getattr(import_module(module), cls)()
    return made


def server_engine(url: str) -> ServerEngine:
    """Return the engine of what lies at a URL (of a part, or as `logins.clean` gives it)."""
    scheme = urlsplit(url).scheme if is_url(url) else ""
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise UsageError(f"memkeep knows no stores in {url}; it knows {known}", hint="memkeep discover --help")
    return cast("ServerEngine", engine(SCHEMES[scheme]))
