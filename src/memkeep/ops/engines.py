"""The engines by name. A new engine is one module and one line here."""

from importlib import import_module

from memkeep.engines.base import Engine
from memkeep.errors import UnsupportedError

_ENGINES = {
    "files": ("memkeep.engines.files", "FilesEngine"),
    "lance": ("memkeep.engines.lance", "LanceEngine"),
    "sqlite": ("memkeep.engines.sqlite", "SqliteEngine"),
}


def engine(name: str) -> Engine:
    """Return an engine; `UnsupportedError` for a name that a newer memkeep wrote."""
    if name not in _ENGINES:
        raise UnsupportedError(f"this memkeep has no engine called {name}", hint="pip install --upgrade memkeep")
    module, cls = _ENGINES[name]
    made: Engine = getattr(import_module(module), cls)()
    return made
