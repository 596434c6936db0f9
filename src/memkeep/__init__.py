"""memkeep keeps the memory of AI agents safe: back it up, prove the backup, bring it back, show what changed.

The names below are the public ones; they are loaded when first asked for, so that importing memkeep costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from memkeep import errors as errors
    from memkeep.config import Retention as Retention
    from memkeep.events import Events as Events
    from memkeep.library import OpenVault as OpenVault
    from memkeep.library import discover as discover
    from memkeep.library import export_store as export_store
    from memkeep.library import import_file as import_file
    from memkeep.library import init_vault as init_vault
    from memkeep.library import migrate_store as migrate_store
    from memkeep.library import open_vault as open_vault
    from memkeep.library import restore_file as restore_file
    from memkeep.library import verify_export as verify_export
    from memkeep.model import Finding as Finding
    from memkeep.model import Omission as Omission
    from memkeep.model import Rung as Rung
    from memkeep.model import Severity as Severity
    from memkeep.model import Store as Store
    from memkeep.ops.embedder import Embedder as Embedder

_HOMES = {
    "Embedder": "memkeep.ops.embedder",
    "Events": "memkeep.events",
    "Finding": "memkeep.model",
    "Omission": "memkeep.model",
    "OpenVault": "memkeep.library",
    "Retention": "memkeep.config",
    "Rung": "memkeep.model",
    "Severity": "memkeep.model",
    "Store": "memkeep.model",
    "discover": "memkeep.library",
    "export_store": "memkeep.library",
    "import_file": "memkeep.library",
    "init_vault": "memkeep.library",
    "migrate_store": "memkeep.library",
    "open_vault": "memkeep.library",
    "restore_file": "memkeep.library",
    "verify_export": "memkeep.library",
}

__all__ = [
    "Embedder",
    "Events",
    "Finding",
    "Omission",
    "OpenVault",
    "Retention",
    "Rung",
    "Severity",
    "Store",
    "__version__",
    "discover",
    "errors",
    "export_store",
    "import_file",
    "init_vault",
    "migrate_store",
    "open_vault",
    "restore_file",
    "verify_export",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "errors":
        return import_module("memkeep.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'memkeep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
