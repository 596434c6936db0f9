"""Take secret values out of what a vault may not have them in.

Of a JSON configuration every other byte stays as it was; of a database every other value, see `sqlite_redact`.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from memkeep.engines.base import Opened
from memkeep.engines.sqlite import SqliteOpened
from memkeep.engines.sqlite_redact import replace_texts
from memkeep.errors import StoreError
from memkeep.model import Part, Role
from memkeep.systems.detect import SECRET_SYSTEMS
from memkeep.systems.openclaw_json import secrets

REDACTED = "redacted by memkeep"


def redactor(part: Part) -> Callable[[bytes], bytes]:
    """Return what takes the secrets of a part out of the bytes of its file.

    `part.secrets` are dotted keys of a JSON file, or columns (`table.column`) of a database that hold JSON.
    """
    return _of_database(part) if part.engine == "sqlite" else _of_json(part)


def at_moment(system: str, part: Part, opened: Opened) -> Part:
    """Return a part with the secrets that it has at the frozen moment, beside those it had when it was found."""
    found: tuple[str, ...] = ()
    if part.engine == "files" and part.role is Role.CONFIG and part.name.endswith(".json"):
        data = b"".join(
            piece for entry in opened.entries() if entry.path == part.name for piece in opened.stream(entry)
        )
        try:
            found = secrets(json.loads(data))
        except ValueError:  # the redactor leaves nothing of what it can't read
            found = ()
    elif isinstance(opened, SqliteOpened):
        columns = next((one.secret_columns for one in SECRET_SYSTEMS if one.name == system), ())
        found = tuple(one for one in columns if _holds(opened, *one.rsplit(".", 1)))
    return msgspec.structs.replace(part, secrets=tuple(dict.fromkeys((*part.secrets, *found))))


def _holds(opened: SqliteOpened, table: str, column: str) -> bool:
    """Say whether texts of a column have secrets in them."""
    there = f"SELECT 1 FROM pragma_table_info('{table}') WHERE name = '{column}'"  # noqa: S608 - names of ours
    if not any(rows for rows in opened.ask(there)):
        return False
    texts = (row[0] for rows in opened.ask(f'SELECT "{column}" FROM "{table}"') for row in rows)  # noqa: S608
    return any(isinstance(one, str) and without_secrets(one) != one for one in [*texts])


def _of_database(part: Part) -> Callable[[bytes], bytes]:
    def redact(data: bytes) -> bytes:
        try:
            for secret in part.secrets:
                table, _, column = secret.rpartition(".")
                data = replace_texts(data, table, column, without_secrets)
        except StoreError as error:
            raise _refused(part) from error
        return data

    return redact


def without_secrets(text: str) -> str:
    """Return a JSON document with its secret values replaced; text that is none is replaced whole."""
    try:
        document = json.loads(text)
    except ValueError:
        return json.dumps(REDACTED)
    found = secrets(document)
    for key in found:
        document = _with(document, key.split("."))
    if secrets(document) and any(_at(document, key.split(".")) != REDACTED for key in secrets(document)):
        return json.dumps(REDACTED)
    return json.dumps(document) if found else text


def _with(document: Any, path: list[str]) -> Any:
    """Return a document in which the text under a dotted key is replaced."""
    if not path:
        return REDACTED
    for cut in range(1, len(path) + 1):
        key = ".".join(path[:cut])
        if isinstance(document, dict) and key in document and _at(document[key], path[cut:]) is not None:
            return {**document, key: _with(document[key], path[cut:])}
        if isinstance(document, list) and key.isdigit() and int(key) < len(document):
            return [_with(one, path[cut:]) if number == int(key) else one for number, one in enumerate(document)]
    return document


def _refused(part: Part) -> StoreError:
    return StoreError(
        f"the secrets in {part.path} could not be taken out",
        unchanged="No snapshot was made.",
        hint="memkeep backup --include-secrets",
    )


def _of_json(part: Part) -> Callable[[bytes], bytes]:
    def redact(data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        for value in _values(text, part):
            quoted = msgspec.json.encode(value).decode()[1:-1]
            for form in {quoted, value, quoted.replace("/", "\\/")}:
                text = re.sub(rf"""(["']){re.escape(form)}\1""", rf"\g<1>{REDACTED}\g<1>", text)
        if any(value != REDACTED for value in _values(text, part)):
            raise _refused(part)
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
