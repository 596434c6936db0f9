"""Make a new, empty Lance table."""

from pathlib import Path
from typing import Any

from memkeep.engines.lance_read import load
from memkeep.errors import RefusedError, StoreError, quoted

_TYPES = ("string", "double")


def create(folder: Path, columns: dict[str, str | int]) -> None:
    """Make a table; a column is `string`, `double`, or the dimensions of its float32 vectors. All may be null.

    Raises `RefusedError` (`target_exists`), `StoreError` where the library is not installed or the disk refuses.
    """
    library = load()
    if library is None:
        raise StoreError("the Lance library is not installed", hint="pip install 'memkeep[lance]'")
    if folder.exists():
        raise RefusedError(f"there is something at {folder} already", hint=f"ls {quoted(folder)}", code="target_exists")
    import pyarrow as pa

    types: dict[str, Any] = {"string": pa.string(), "double": pa.float64()}
    fields = [
        pa.field(name, types[kind] if isinstance(kind, str) else pa.list_(pa.float32(), kind))
        for name, kind in columns.items()
    ]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        library.write_dataset(
            pa.table({field.name: pa.array([], field.type) for field in fields}),
            str(folder),
            data_storage_version="2.0",
        )
    except OSError as error:
        raise StoreError(f"{folder} can't be made: {error}", hint="df -h") from error
