"""Find stores, and change nothing."""

from collections.abc import Sequence
from pathlib import Path

from memkeep.config import Config
from memkeep.model import Store
from memkeep.systems import detect


def discover(paths: Sequence[Path] | None = None, config: Config | None = None) -> list[Store]:
    """Return the stores at or below the given paths, or in the products' own places when none is given.

    Raises `StoreError` for a path that does not exist or holds nothing to keep.
    """
    return detect.discover(list(paths) if paths else None, config=config)
