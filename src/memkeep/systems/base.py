"""The contract of a system: where a product keeps its memory, as parts and a mapping to records. Nothing else."""

from pathlib import Path
from typing import Protocol

from memkeep.model import Store


class Homes(Protocol):
    """The places to look in when no path is given; made by `detect` from the environment."""

    home: Path
    state_dir: Path  # ~/.openclaw or OPENCLAW_STATE_DIR


class System(Protocol):
    """A product. Stateless; adding one is one module and one line in `detect.SYSTEMS`."""

    name: str

    def detect(self, path: Path) -> list[Store]:
        """Return the stores of this system that lie exactly at `path` (a folder or a file); [] when none does.

        Told by content (table and column names), never by path. Reads only; changes nothing, side files included.
        """
        ...

    def default_paths(self, config: dict[str, object], homes: Homes) -> list[Path]:
        """Return where this product keeps its stores by default or by what `openclaw.json` (`config`) says."""
        ...

    def examine(self, store: Store) -> list["object"]:
        """Return findings that need the product's own knowledge, e.g. a credential vault in plain text."""
        ...
