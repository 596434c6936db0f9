"""A look at a Lance table by its newest manifest: no library, no row, nothing held."""

from pathlib import Path

from memkeep.engines import lance_manifest
from memkeep.engines.lance_manifest import Manifest
from memkeep.errors import StoreError
from memkeep.model import Value

_LOOKS = 10  # at a table that is cleaned up while it is looked at


class LanceInspection(Value):
    """What a manifest says of a table, without reading a row."""

    version: int
    columns: dict[str, str]  # name -> logical type, e.g. "string", "double", "fixed_size_list:float:16"
    rows: int
    fragments: int
    vectors: dict[str, int]  # vector column -> dimensions


def inspect(path: Path) -> LanceInspection | None:
    """Look at a table, live or not, without the library and changing nothing; None when it can't be read as one."""
    manifest = _read_newest(path)
    if manifest is None:
        return None
    return LanceInspection(
        version=manifest.version,
        columns=manifest.columns,
        rows=manifest.rows,
        fragments=len(manifest.fragments),
        vectors=manifest.vectors,
    )


def _read_newest(path: Path) -> Manifest | None:
    for _ in range(_LOOKS):
        try:
            newest = lance_manifest.newest(path)
            if newest is None:
                return None
            data = (path / "_versions" / newest.name).read_bytes()
        except FileNotFoundError:  # cleaned up in between
            continue
        except OSError:
            return None
        try:
            return lance_manifest.parse(data, str(path), newest.version)
        except StoreError:
            return None
    return None
