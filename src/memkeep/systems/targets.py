"""The products that records can move to."""

import re

from memkeep.errors import UsageError
from memkeep.systems import (
    target_hybrid,
    target_lancedb,
    target_mem0,
    target_oc_memory,
    target_openmemory,
    target_thanos,
)
from memkeep.systems.target import Target

TARGETS: tuple[Target, ...] = (
    target_hybrid,
    target_lancedb,
    target_mem0,
    target_oc_memory,
    target_openmemory,
    target_thanos,
)
NAMES = tuple(name for target in TARGETS for name in target.names)
_NAMED = re.compile(r"([a-z][a-z0-9-]*):(?!//)(.+)", re.DOTALL)


def told(text: str) -> tuple[str, str]:
    """Return the name of a product before a place, "" for none, and the place: `mem0:/new/folder`."""
    named = _NAMED.fullmatch(text)
    return (named[1], named[2]) if named and named[1] in NAMES else ("", text)


def of_name(name: str) -> Target:
    """Return the target that a person names."""
    return next(target for target in TARGETS if name in target.names)


def of_system(system: str) -> Target:
    """Return the target of a store's system; `UsageError` for one that takes no records from elsewhere."""
    found = next((target for target in TARGETS if target.name == system), None)
    if found is None:
        raise UsageError(
            f"records can't be put into {system} yet, only into {', '.join(NAMES)}", hint="memkeep migrate --help"
        )
    return found
