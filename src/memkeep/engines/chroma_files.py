"""Which files of a folder are a persistent directory of Chroma: its database, and a folder for each vector segment."""

import re

DATABASE = "chroma.sqlite3"
INCLUDE = (f"{DATABASE}*", "????????-????-????-????-????????????/*")  # patterns of all that belongs to it
_SEGMENT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_segment(name: str) -> bool:
    """Say whether a folder's name is a segment's."""
    return _SEGMENT.fullmatch(name) is not None
