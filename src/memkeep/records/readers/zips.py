"""Zips from anywhere: read where they are, never unpacked."""

import struct
import zipfile
import zlib
from pathlib import Path

DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, UnicodeDecodeError, EOFError, RuntimeError, OSError)
"""What the library makes of a zip that is broken, encrypted, or of a kind it does not know."""


def opened(path: Path) -> zipfile.ZipFile:
    """Return a zip, opened; raises `ValueError` of one sentence."""
    try:
        return zipfile.ZipFile(path)
    except DAMAGED as error:
        raise ValueError(f"no whole zip: {error}") from error
