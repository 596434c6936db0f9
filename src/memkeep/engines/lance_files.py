"""Which files a version of a Lance table is made of."""

import os
from pathlib import Path

from memkeep.engines.lance_manifest import Manifest


def named(manifest: Manifest) -> list[str]:
    """Return the files that a manifest names one by one, in its order; what lies outside of the folder is not in it."""
    names: dict[str, None] = {}
    for fragment in manifest.fragments:
        for file in fragment.files:
            if file.base is None:
                names[file.path] = None
        if fragment.deletion_file and fragment.deletion_base is None:
            names[fragment.deletion_file] = None
        for name in fragment.row_files:
            names[name] = None
    for index in manifest.indices:
        if index.base is None:
            names.update((f"_indices/{index.uuid}/{name}", None) for name in index.files)
    return list(names)


def outside(manifest: Manifest) -> list[str]:
    """Return the files that belong to the version but lie in another place, each as `<place>: <file>`."""
    found: dict[str, None] = {}
    for fragment in manifest.fragments:
        for file in fragment.files:
            if file.base is not None:
                found[f"{manifest.bases.get(file.base, '?')}: {file.path}"] = None
        if fragment.deletion_base is not None:
            found[f"{manifest.bases.get(fragment.deletion_base, '?')}: {fragment.deletion_file}"] = None
    for index in manifest.indices:
        if index.base is not None:
            found[f"{manifest.bases.get(index.base, '?')}: _indices/{index.uuid}"] = None
    return list(found)


def listed(folder: Path, manifest: Manifest) -> list[str]:
    """Return the files in folders that belong to the version as a whole: indices, and blobs beside data files."""
    folders = [f"_indices/{index.uuid}" for index in manifest.indices if index.base is None]
    if manifest.blobs:
        data = [file.path for fragment in manifest.fragments for file in fragment.files if file.base is None]
        folders += [path.removesuffix(".lance") for path in data]
    found = []
    for name in folders:
        for here, _, files in os.walk(folder / name, onerror=_raise_unless_missing):
            under = Path(here).relative_to(folder).as_posix()
            found += [f"{under}/{file}" for file in sorted(files)]
    return found


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def transaction(manifest: Manifest) -> list[str]:
    """Return the file that records how the version came about; it may be gone."""
    return [f"_transactions/{manifest.transaction}"] if manifest.transaction else []
