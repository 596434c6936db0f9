"""All checks, in the order in which they are shown."""

from memkeep.ops.audits import (
    contradictions,
    duplicates,
    importance,
    orphans,
    outdated,
    places,
    poisoning,
    secrets,
    vectors,
)
from memkeep.ops.audits.base import Check

CHECKS: tuple[Check, ...] = (
    poisoning,
    secrets,
    orphans,
    vectors,
    contradictions,
    duplicates,
    outdated,
    places,
    importance,
)
NAMES: tuple[str, ...] = tuple(check.name for check in CHECKS)
