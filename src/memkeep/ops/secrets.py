"""Take secret values out of a JSON configuration, leaving every other byte as it was."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from memkeep.errors import StoreError
from memkeep.model import Part

REDACTED = "redacted by memkeep"


def redactor(part: Part) -> Callable[[bytes], bytes]:
    """Return what replaces the literals of `part.secrets` (dotted keys) in the file's text."""

    def redact(data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        for value in _values(text, part):
            quoted = msgspec.json.encode(value).decode()[1:-1]
            for form in {quoted, value, quoted.replace("/", "\\/")}:
                text = re.sub(rf"""(["']){re.escape(form)}\1""", rf"\g<1>{REDACTED}\g<1>", text)
        if any(value != REDACTED for value in _values(text, part)):
            raise StoreError(
                f"the secrets in {part.path} could not be taken out",
                unchanged="No snapshot was made.",
                hint="memkeep backup --include-secrets",
            )
        return text.encode("utf-8", "surrogateescape")

    return redact


def reason(part: Part) -> str:
    """Say which values were taken out."""
    return f"secret values were replaced: {', '.join(part.secrets)}"


def _values(text: str, part: Part) -> list[str]:
    from memkeep.records.relaxed import loads

    document = loads(text)
    found = []
    for key in part.secrets:
        value = _at(document, key.split("."))
        if isinstance(value, str) and value:
            found.append(value)
    return found


def _at(document: Any, path: list[str]) -> Any:
    """Follow a dotted key; a key may itself hold dots, so every split is tried."""
    if not path:
        return document
    for cut in range(1, len(path) + 1):
        key = ".".join(path[:cut])
        if isinstance(document, dict) and key in document:
            return _at(document[key], path[cut:])
        if isinstance(document, list) and key.isdigit() and int(key) < len(document):
            return _at(document[int(key)], path[cut:])
    return None
