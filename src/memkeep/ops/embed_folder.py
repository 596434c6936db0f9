"""The folder of an export as what vectors are made for: the export is written anew, with them, in its own place."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from memkeep.embedding.base import Provider
from memkeep.embedding.journal import Journal
from memkeep.errors import FileError, UsageError, quoted
from memkeep.events import Events
from memkeep.model import Severity
from memkeep.ops.embed_texts import Text, key_of, usable
from memkeep.ops.embed_write import Unwritten, Written
from memkeep.ops.export import export
from memkeep.ops.exported import CHECKSUMS, METADATA, metadata_of, verify_export
from memkeep.records.formats.base import About, Format
from memkeep.records.formats.catalog import FORMATS
from memkeep.records.plain import from_plain
from memkeep.records.readers.base import Refused
from memkeep.records.record import Portable, Record, Relationship, Vector


def is_export(path: str) -> bool:
    """Say whether a path is that of a folder that `memkeep export` wrote."""
    folder = Path(path).expanduser()
    return (folder / CHECKSUMS).is_file() and (folder / METADATA).is_file()


class FolderBody:
    """The texts of an export; an `embed.Body`."""

    def __init__(self, folder: str, events: Events) -> None:
        """Check it first. Raises `FileError` when it is not what was written, `UsageError` for a format that loses."""
        self._folder = Path(folder).expanduser().resolve()
        self._said = metadata_of(self._folder)
        self._format = _format(self._folder, self._said)
        broken = [one for one in verify_export(self._folder, events=events).findings if one.severity is Severity.ERROR]
        if broken:
            raise FileError(
                f"{self._folder} is not what was exported: {broken[0].part or ''} {broken[0].message}",
                hint=f"memkeep export --verify {quoted(self._folder)}",
            )

    @property
    def path(self) -> str:
        """Where it is."""
        return str(self._folder)

    @property
    def system(self) -> str:
        """Which product's records they are."""
        return str(self._said.get("system") or "")

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What it says of the store that it is of."""
        said = self._said.get("fingerprint")
        return said if isinstance(said, dict) else {}

    def texts(self) -> Iterator[tuple[str, Text]]:
        """Yield the texts of memories, and of what has a vector beside them."""
        for made in self._read():
            if isinstance(made, Record) and _is_wanted(made):
                yield made.collection, Text(made.id, made.text, made.vectors.get(""))

    def sizes(self) -> Counter[int]:
        """Return no size: a file takes any."""
        return Counter()

    def keep(self, events: Events) -> tuple[None, None]:  # noqa: ARG002 - the contract's signature
        """Keep nothing: the store that it is of has its own snapshots."""
        return None, None

    def write(
        self,
        journal: Journal,
        provider: Provider,
        refused: Mapping[bytes, str],
        *,
        every: bool,
        kept: str | None,  # noqa: ARG002 - the contract's signature
        events: Events,
    ) -> Written:
        """Write the export anew; the old one is there until the new one is whole."""
        source = _Embedded(self._about(provider, journal.dims, every=every), self._read, journal, provider, every=every)
        export(source, self._folder, self._format.name, redact=False, events=events)
        left = [
            Unwritten(place, str(one.id), refused[key])
            for place, one in self.texts()
            if (key := key_of(provider.identity, one.text)) in refused
        ]
        return Written(source.count, tuple(left), ())

    def _read(self) -> Iterator[Portable]:
        for made in self._format.read(self._folder):
            if isinstance(made, Refused):
                raise FileError(f"{made.where}: {made.reason}", hint=f"memkeep export --verify {quoted(self._folder)}")
            yield made

    def _about(self, provider: Provider, dims: int | None, *, every: bool) -> About:
        """Return where the records are from, as the export says it, and of which model their vectors are now."""
        said = from_plain(self._said)
        filters = {name: value for name, value in dict(said.get("filters") or {}).items() if name != "vectors"}
        model = {"embedding": {"provider": provider.name, "model": provider.model, "dims": dims}}
        named = every or not isinstance(self.fingerprint.get("embedding"), dict)
        return About(
            system=self.system,
            path=str(said.get("path") or ""),
            taken=str(said.get("timestamp") or ""),
            snapshot=said.get("snapshot"),
            fingerprint=dict(said.get("fingerprint") or {}) | (model if named else {}),
            filters=filters,
            omitted=tuple(said.get("omitted") or ()),
        )


class _Embedded:
    """The records of an export with the vectors of a journal; a `formats.base.Source`."""

    def __init__(self, about: About, read: Any, journal: Journal, provider: Provider, *, every: bool) -> None:
        self.about = about
        self.count = 0
        self._read = read
        self._journal = journal
        self._known = journal.keys()
        self._provider = provider
        self._every = every

    def records(self) -> Iterator[Record]:
        """Yield the records."""
        self.count = 0
        for made in self._read():
            if isinstance(made, Record):
                yield self._with_vector(made)

    def relationships(self) -> Iterator[Relationship]:
        """Yield what joins them."""
        found: Iterable[Portable] = self._read()
        for made in found:
            if isinstance(made, Relationship):
                yield made

    def _with_vector(self, made: Record) -> Record:
        if not _is_wanted(made) or (usable(made.vectors.get("")) and not self._every):
            return made
        key = key_of(self._provider.identity, made.text)
        if key not in self._known:
            return made
        self.count += 1
        model = f"{self._provider.name}/{self._provider.model}"
        vector = Vector.f32(self._journal.find([key])[0].tobytes(), model)
        return msgspec.structs.replace(made, vectors={**made.vectors, "": vector})


def _is_wanted(made: Record) -> bool:
    return bool(made.text.strip()) and (made.primary or "" in made.vectors)


def _format(folder: Path, said: Mapping[str, Any]) -> Format:
    found = next((one for one in FORMATS if one.name == said.get("format")), None)
    if found is None or not found.lossless:
        raise UsageError(
            f"{folder} is in a format that does not keep all of a record: {said.get('format') or 'nobody says which'}",
            hint="memkeep export STORE --format json -o DIR",
        )
    return found
