"""The contract of a system: where a product keeps its memory, as parts and a mapping to records. Nothing else.

A system is a module; adding one is that module and its name in `detect.SYSTEMS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from memkeep.model import Store, Value
from memkeep.systems.look import Look


class OpenClaw(Value):
    """One `openclaw.json`: the folder it lies in, which is the state folder it speaks for, and what it says."""

    state_dir: Path
    data: dict[str, Any]


class Places(Value):
    """What the environment says of where products keep their things; made by `detect`."""

    home: Path
    state_dir: Path  # `OPENCLAW_STATE_DIR`, or `~/.openclaw`
    environ: Mapping[str, str] = {}
    configs: tuple[OpenClaw, ...] = ()  # of the state folder in use, and of those found on the way


class System(Protocol):
    """A product. Stateless."""

    name: str

    queries: tuple[str, ...]
    """Questions that `detect` asks of databases by `Look.rows`; asked of each database while it is first looked at."""

    def detect(self, look: Look, path: Path, places: Places) -> list[Store]:
        """Return the stores of this system that lie exactly at `path` (a folder or a database); [] when none does.

        Told by content (table and column names), never by path. All that belongs to the store is in a part or in
        `Store.omitted`; what the product's own knowledge notices (a vault in plain text) is in `Store.findings`.
        Reads only, through `look`; changes nothing, side files included.
        """
        ...

    def default_paths(self, places: Places) -> list[Path]:
        """Return where this product keeps its stores by default or by what the configs say, there or not."""
        ...


class ServerSystem(System, Protocol):
    """A product whose store may lie in a server as a whole."""

    def detect_url(self, look: Look, url: str, places: Places) -> list[Store]:
        """Return the stores of this system that a server has at a URL without secrets; [] when it has none."""
        ...
