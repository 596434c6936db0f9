"""Put a new export in the place of an older one, whole.

A folder that is the export and nothing else is swapped: the old one is renamed, the new one gets its name, the old
one is removed; killed in between, the next export finds the old one and begins by giving it its name back. Where
others have files beside it, or where a folder can't be renamed (a mount, the folder one stands in), its files are
renamed one by one, between two lists of checksums: the first names the old files too, so that whatever happens the
next export knows which files are its own.
"""

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from memkeep.errors import RefusedError, StorageError
from memkeep.ops.exported import CHECKSUMS, METADATA, files_in, listed, metadata_of, write_checksums
from memkeep.ops.new_folder import beside, new_folder
from memkeep.records.formats.objects import MAKER

STAGING = ".memkeep-"
_PARKED = ".memkeep-old"


@contextmanager
def replaced(target: Path, *, shared: bool) -> Iterator[Path]:
    """Lend an empty folder that takes the place of the export at `target` when all went well.

    `shared`: files of others may lie beside it; else they are a `RefusedError`, as is a file of another's in the way.
    """
    try:
        _recover(target)
        refuse(target, shared=shared)
        if not target.exists() or not any(target.iterdir()):
            with new_folder(target) as staging:
                yield staging
        elif _must_stay(target):
            with beside(target / "export") as staging:
                yield staging
                _merge(staging, target)
        else:
            with beside(target) as staging:
                yield staging
                _swap(staging, target)
    except OSError as error:
        raise StorageError(
            f"could not write {target}: {error.strerror or error}", hint=f"ls -ld {shlex.quote(str(target.parent))}"
        ) from error


def refuse(target: Path, *, shared: bool) -> None:
    """Refuse a target that is no folder, or holds what no export wrote."""
    if target.exists() and not target.is_dir():
        raise RefusedError(f"{target} is no folder", hint=_elsewhere(target), code="target_exists")
    if not target.exists() or shared:
        return
    if strange := [one for one in _foreign(target) if one != ".git"]:
        more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
        raise RefusedError(
            f"{target} holds {strange[0]}{more}, which no export wrote", hint=_elsewhere(target), code="target_exists"
        )


def own_files(target: Path) -> list[str]:
    """Return the names of the files that an earlier export wrote here, or began to."""
    if metadata_of(target).get("made_by") != MAKER:
        return []
    files = listed(target)
    return [METADATA] if files is None else [*{METADATA: "", **files}, CHECKSUMS]


def _foreign(target: Path) -> list[str]:
    names = set(files_in(target))
    names |= {one.name for one in target.iterdir() if one.name.startswith(".") and STAGING not in one.name}
    names |= {CHECKSUMS} if (target / CHECKSUMS).exists() else set()
    for root, folders, _ in os.walk(target):
        names |= {str((Path(root) / one).relative_to(target)) for one in folders if (Path(root) / one).is_symlink()}
    return sorted(names - set(own_files(target)))


def _must_stay(target: Path) -> bool:
    """Say whether the folder itself can't go: others have files in it, it is a mount, or somebody stands in it."""
    return bool(_foreign(target)) or target.is_mount() or Path.cwd().is_relative_to(target)


def _recover(target: Path) -> None:
    """Give the old export its name back when a swap was killed half-way."""
    parked = target.parent / f".{target.name}{_PARKED}"
    if parked.is_dir():
        if target.exists():
            shutil.rmtree(parked)
        else:
            parked.rename(target)


def _swap(staging: Path, target: Path) -> None:
    staging.chmod(target.stat().st_mode & 0o7777)
    parked = target.parent / f".{target.name}{_PARKED}"
    target.rename(parked)
    try:
        staging.rename(target)
    except OSError:
        parked.rename(target)
        raise
    _sync_folder(target.parent)
    shutil.rmtree(parked)


def _merge(staging: Path, target: Path) -> None:
    new = listed(staging) or {}
    old = own_files(target)
    for name in (*new, CHECKSUMS):
        if name not in old and _in_the_way(target, name):
            raise RefusedError(
                f"{target / name} is there, and no export wrote it", hint=_elsewhere(target), code="target_exists"
            )
    (staging / METADATA).rename(target / METADATA)
    write_checksums(target, dict.fromkeys((one for one in old if one != CHECKSUMS), "") | new)
    for name in new.keys() - {METADATA}:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).rename(target / name)
    _remove(target, set(old) - {*new, CHECKSUMS})
    (staging / CHECKSUMS).rename(target / CHECKSUMS)
    _sync_folder(target)


def _in_the_way(target: Path, name: str) -> bool:
    path = target / name
    if path.exists() or path.is_symlink():
        return True
    return any(
        target / one != target and (target / one).exists() and not (target / one).is_dir() for one in Path(name).parents
    )


def _remove(target: Path, names: Iterable[str]) -> None:
    """Remove files that the new export no longer has, and the folders that held nothing else."""
    for name in names:
        path = target / name
        if path.parent.resolve().is_relative_to(target.resolve()):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                while path.parent != target:
                    path = path.parent
                    path.rmdir()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _elsewhere(target: Path) -> str:
    return f"memkeep export latest --format json -o {shlex.quote(f'{target}-memory')}"
