"""Records without the secrets that are in their texts."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from memkeep.records import secrets
from memkeep.records.formats.base import About, Source
from memkeep.records.record import TIMES, Record, Relationship

_KEPT = frozenset(("id", "collection", "primary", "status", "superseded_by", "supersedes", "system", "vectors", *TIMES))
"""Fields that name records and kinds or hold no text. A vector says too little of its text to give a key away."""
_KEPT_OF_RELATIONSHIP = _KEPT | {"source", "target", "type"}

_NAMES = re.compile(r"(?i)pass|pwd|secret|token|key|kennwort|contrase|pin")
"""What is in a key under which `secrets` may find more than in the value alone."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # `dbPassword` is `db_Password`


class Redacted:
    """A source whose texts have a mark, `[redacted api_key]`, wherever a secret stood."""

    def __init__(self, source: Source) -> None:
        """Wrap a source."""
        self._source = source
        self._found: dict[str, Counter[str]] = {"records": Counter(), "relationships": Counter()}

    @property
    def about(self) -> About:
        """Where the records are from, without secrets too."""
        about = self._source.about
        filters = about.filters | {"redacted": True}
        plain = {name: _value(getattr(about, name), Counter()) for name in ("path", "fingerprint", "omitted")}
        return msgspec.structs.replace(about, filters=_value(filters, Counter()), **plain)

    @property
    def found(self) -> dict[str, int]:
        """How many secrets of each kind were in what was yielded the last time."""
        return dict(sorted((self._found["records"] + self._found["relationships"]).items()))

    def records(self) -> Iterator[Record]:
        """Yield the records."""
        self._found["records"] = found = Counter[str]()
        for one in self._source.records():
            yield _without(one, _KEPT, found)

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them."""
        self._found["relationships"] = found = Counter[str]()
        for one in self._source.relationships():
            yield _without(one, _KEPT_OF_RELATIONSHIP, found)


def _without(made: Any, kept: frozenset[str], found: Counter[str]) -> Any:
    changed = {}
    for name in made.__struct_fields__:
        value = getattr(made, name)
        if value and name not in kept and not isinstance(value, int | float):
            clean = _value(value, found)
            if clean != value:
                changed[name] = clean
    return msgspec.structs.replace(made, **changed) if changed else made


def _value(value: Any, found: Counter[str]) -> Any:
    """Return a value of any depth without secrets; those that were in it are counted."""
    if isinstance(value, str):
        return secrets.redact(value, found)
    if isinstance(value, bytes):
        return _value(value.decode("utf-8", "surrogateescape"), found).encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {_value(key, found): _named(key, item, found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_value(item, found) for item in value)
    return value


def _named(key: Any, item: Any, found: Counter[str]) -> Any:
    """Return the value of a key: a word that is none by itself may be a password under its name."""
    clean = _value(item, found)
    if isinstance(key, str) and isinstance(item, str) and clean == item and _NAMES.search(key):
        head = f"{_HUMP.sub('_', key)}: "
        named = [one for one in secrets.find(head + item) if one.end > len(head)]
        if named:
            found[named[0].kind] += 1
            return secrets.mark(named[0].kind)
    return clean
