"""A folder that appears whole or not at all."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from memkeep.errors import RefusedError, StorageError, quoted


def refuse_taken(target: Path, what: str) -> None:
    """Refuse a target that is neither new nor an empty folder; `what` is what `memkeep restore` was asked for."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise RefusedError(
            f"{target} exists and is not an empty folder",
            hint=f"memkeep restore {what} --to {quoted(target)}-restored",
            code="target_exists",
        )


def refuse_inside(target: Path, what: str, folders: Mapping[str, Path | None]) -> None:
    """Refuse a target that would become part of one of the folders, which are given by what they are."""
    for name, folder in folders.items():
        if folder is not None and _is_folder(folder) and target.resolve().is_relative_to(folder.resolve()):
            raise RefusedError(
                f"{target} lies in {name}, {folder}", hint=f"memkeep restore {what} --to DIR", code="target_inside"
            )


def _is_folder(path: Path) -> bool:
    with suppress(OSError):  # where one may not look one may not write either
        return path.is_dir()
    return False


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Lend a private folder beside the target, renamed to it at the end; `StorageError` for what the system says."""
    made: list[Path] = []
    try:
        made = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside(target) as staging:
            yield staging
            staging.rename(target)  # onto an empty folder or nothing; fails on anything else
    except OSError as error:
        raise StorageError(
            f"could not write {target}: {error.strerror}", hint=f"ls -ld {quoted(target.parent)}"
        ) from error
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()  # only what was made for nothing


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a folder beside the target, gone at exit unless it was renamed; remove those of killed restores."""
    prefix = f".{target.name}.memkeep-"
    for old in target.parent.iterdir():
        if old.name.startswith(prefix):
            with suppress(OSError), _locked(old):
                shutil.rmtree(old, ignore_errors=True)
    staging = target.parent / f"{prefix}{secrets.token_hex(4)}"
    staging.mkdir(mode=0o700)
    try:
        with _locked(staging):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
