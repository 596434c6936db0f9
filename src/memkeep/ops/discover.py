"""Find stores, and change nothing."""

from collections.abc import Sequence
from os import PathLike

from memkeep.config import Config
from memkeep.model import Store
from memkeep.ops.backup import FailedStore, failed_store
from memkeep.systems import detect


def discover(
    places: Sequence[str | PathLike[str]] | None = None,
    config: Config | None = None,
    *,
    unfound: list[FailedStore] | None = None,
) -> list[Store]:
    """Return the stores at or below the given paths or URLs, or in the products' own places when none is given.

    Raises `StoreError` for one that does not exist or holds nothing to keep. With `unfound` a store of the settings
    that is so is added there instead, and the others are returned.
    """
    if places or unfound is None:
        return detect.discover(list(places) if places else None, config=config)
    return detect.discover(config=config, trouble=lambda place, error: unfound.append(failed_store(place, error)))
