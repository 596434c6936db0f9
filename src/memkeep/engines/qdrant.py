"""Qdrant collections in a server: the streamed snapshots of their shards, and what a server must know beside them.

The image (see `qdrant_image`) can be loaded without memkeep: make a collection with the `config` of `collection.json`,
pack each folder under `shards/` as a tar and upload it. Cosine vectors are kept as the server has them, of unit
length: what they were before is gone when they arrive there.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from memkeep.engines import point_rows, qdrant_edge, qdrant_freeze, qdrant_image, qdrant_inspect, recall
from memkeep.engines.base import Rebuilt, ServerInspection
from memkeep.engines.merging import FailedRow, Wanted, left_out
from memkeep.engines.payload_rows import PayloadRows
from memkeep.engines.qdrant_dense import Marks, Shelf
from memkeep.engines.qdrant_edge import Point, Shard
from memkeep.engines.qdrant_freeze import Freezer, Frozen
from memkeep.engines.qdrant_http import Address, Server, address
from memkeep.engines.qdrant_ids import UnknownLayoutError
from memkeep.engines.qdrant_image import CollectionImage, ShardImage
from memkeep.engines.qdrant_probes import QUESTIONS, Asker, column
from memkeep.engines.qdrant_rebuild import Rebuilder, Streams, existing
from memkeep.engines.recall import Answers
from memkeep.engines.rows import Columns, Gone, Rows, no_table
from memkeep.errors import StoreError, UnsupportedError
from memkeep.events import Events
from memkeep.model import Baseline, Entry, Finding, Omission, Part, Probe, Run, Severity, TableMap, TableState
from memkeep.records.groups import Group
from memkeep.records.shape import Row

if TYPE_CHECKING:
    from memkeep.engines.qdrant_delete import QdrantDelete
    from memkeep.engines.qdrant_merge import QdrantMerge, QdrantRows

__all__ = ["QdrantEngine", "QdrantOpened"]

_BUFFER = 1 << 20


class QdrantEngine:
    """Holds, reads and rebuilds one collection of a Qdrant server."""

    name = "qdrant"

    @contextmanager
    def freeze(self, part: Part, root: Path, scratch: Path) -> "Iterator[QdrantOpened]":  # noqa: ARG002 - no files
        """Stream the snapshots of all shards into `scratch`. Raises `StoreError`, `UnsupportedError`."""
        where = address(part.path)
        opened = QdrantOpened(part, scratch / "image", scratch, _frozen(where, part.name, scratch), where)
        opened.look_through()
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def open(self, part: Part, root: Path) -> "Iterator[QdrantOpened]":
        """Open an image that was written under `root`; raises `DamagedError` when it is none."""
        with tempfile.TemporaryDirectory(prefix=".memkeep-qdrant-", dir=root) as scratch:
            image = qdrant_image.read(root / part.name)
            opened = QdrantOpened(part, root / part.name, Path(scratch), Frozen(image=image, clocks={}), None)
            try:
                yield opened
            finally:
                opened.close()

    def count(self, part: Part, table: str) -> int | None:
        """Ask the server how many points there are."""
        where = address(part.path)
        with suppress(StoreError):
            return qdrant_inspect.count(where) if table == where.collection else None
        return None

    def inspect(self, url: str) -> ServerInspection:
        """Return the collection that a URL names, or all. Raises `StoreError`."""
        return qdrant_inspect.inspect(url)

    def size(self, part: Part) -> int:
        """Return about how many bytes the vectors and payloads take."""
        return qdrant_inspect.size(address(part.path))

    def aim(self, part: Part, url: str) -> str:
        """Return the collection that a URL names, else the one of the part's own name."""
        name = address(part.path).collection
        return url if address(url).collection else f"{url.rstrip('/')}/{quote(name, safe='')}"

    def exists(self, part: Part, target: str) -> bool:  # noqa: ARG002 - the URL says all
        """Say whether there is a collection, or an alias of one."""
        with Server(address(target)) as server:
            return existing(server) is not None

    def by_hand(self, part: Part, root: Path) -> str:
        """Return where it is and what to send where."""
        folder = root / part.name
        return (
            f"make a collection with the `config` of {folder / qdrant_image.NAME}, then send each folder under "
            f"{folder / qdrant_image.SHARDS} as a tar to POST /collections/NAME/shards/NUMBER/snapshots/upload"
        )

    @contextmanager
    def merge(self, live: Part, image: Part, root: Path, wanted: Wanted) -> "Iterator[QdrantMerge]":
        """Merge an image into a live collection; see `qdrant_merge`."""
        from memkeep.engines.qdrant_merge import QdrantMerge

        with self.open(image, root) as opened, Server(address(live.path)) as server:
            yield QdrantMerge(server, opened.streams, live.maps[0], wanted)

    def columns(self, live: Part, table: str) -> Columns | None:
        """Return the vectors that a live collection takes, beside `id` and any key; None when it is not there."""
        where = address(live.path)
        if table != where.collection:
            return None
        with Server(where) as server:
            if existing(server) is None:
                return None
            config = server.get(where.path)["config"]
        vectors = {column(name): int(one["size"]) for name, one in qdrant_image.vectors_of(config).items()}
        vectors |= {column(name): 0 for name in config["params"].get("sparse_vectors") or {}}
        return Columns(names=("id", *vectors), vectors=vectors)

    @contextmanager
    def merge_rows(
        self,
        live: Part,
        rows: Mapping[str, Rows],
        wanted: Wanted,
        scratch: Path | None = None,  # noqa: ARG002 - the contract's signature
    ) -> "Iterator[QdrantRows]":
        """Merge rows into a live collection; see `qdrant_merge`."""
        from memkeep.engines.qdrant_merge import QdrantRows

        map_ = live.maps[0]
        failed: list[FailedRow] = []
        given = rows.get(map_.table, lambda: iter(()))
        with Server(address(live.path)) as server:
            one = QdrantRows(server, lambda: [point_rows.points(given, map_.table, failed)], map_, wanted)
            one.result = msgspec.structs.replace(
                one.result, failed=(*one.result.failed, *failed), left=left_out(rows, live.maps)
            )
            yield one

    @contextmanager
    def delete_rows(self, live: Part, gone: Sequence[Gone]) -> "Iterator[QdrantDelete]":
        """Delete points of the live collection."""
        from memkeep.engines.qdrant_delete import QdrantDelete

        with Server(address(live.path)) as server:
            yield QdrantDelete(server, gone)

    def rebuild(self, part: Part, root: Path, target: str, *, replace: bool, events: Events) -> Rebuilt:
        """Put an image into a server; see `qdrant_rebuild`."""
        with self.open(part, root) as opened:

            def look(where: Address, folder: Path) -> Streams:
                there = QdrantOpened(part, folder / "image", folder, _frozen(where, part.name, folder), where)
                return there.streams

            if not qdrant_edge.installed():
                raise UnsupportedError(
                    "a Qdrant collection can't be compared without the package qdrant-edge-py",
                    hint="pip install 'memkeep[qdrant]'",
                )
            rebuilder = Rebuilder(root / part.name, opened.image, opened.streams, look, events)
            return rebuilder.rebuild(address(target), replace=replace)

    def recall(self, part: Part, root: Path, target: str, baseline: Baseline) -> list[Finding]:
        """Ask the search of the collection the questions that were asked before."""
        answers: Answers = {}
        if known := recall.wanted(baseline):
            probes = tuple(one for one in baseline.probes if (one.table, one.column, one.question) in known)
            with self.open(part, root) as opened, Server(address(target)) as server:
                answers = opened.ask(server, probes)
        return recall.compare(part.name, baseline, answers)


class QdrantOpened:
    """One moment of a collection, unpacked in a folder."""

    def __init__(self, part: Part, folder: Path, scratch: Path, frozen: Frozen, where: Address | None) -> None:
        """Take over an image; `scratch` is for disposable copies, `where` is None for an image that is not live."""
        shards = len(frozen.image.shards)
        self.how = "streamed shard snapshot" if shards == 1 else f"streamed snapshots of {shards} shards"
        self._part = part
        self._folder = folder
        self._scratch = scratch
        self._frozen = frozen
        self._where = where
        self._findings = list(frozen.findings)
        self._baseline: Baseline | None = None
        self._runs: dict[str, list[Run]] | None = None
        self._recall: Answers = {}
        self._marks: dict[int, Marks] = {}

    @property
    def image(self) -> CollectionImage:
        """What is in the image."""
        return self._frozen.image

    def entries(self) -> list[Entry]:
        """Return the files of the image and their folders."""
        found = []
        for path in sorted([self._folder, *self._folder.rglob("*")]):
            inside = path.relative_to(self._folder).as_posix()
            name = self._part.name if inside == "." else f"{self._part.name}/{inside}"
            now = path.lstat()
            if path.is_dir():
                found.append(Entry(path=name, kind="dir", mode=0o700, mtime_ns=0))
            else:
                found.append(Entry(path=name, size=now.st_size, mode=0o600, mtime_ns=now.st_mtime_ns))
        return found

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's bytes."""
        if entry.kind != "file":
            return
        try:
            with self._path(entry).open("rb", buffering=0) as file:
                while buffer := file.read(_BUFFER):
                    yield buffer
        except OSError as error:
            raise StoreError(f"{entry.path} cannot be read: {error.strerror}") from error

    def runs(self, entry: Entry) -> tuple[Run, ...]:
        """Return where plain vectors lie in a file."""
        if self._runs is None:
            self._runs = self._find_runs()
        return tuple(self._runs.get(entry.path, ()))

    def scan(self, bits: dict[str, int], probes: tuple[Probe, ...] | None = None) -> Iterator[Group]:
        """Read every point; a shard that cannot be read is a finding, and then there are no records."""
        self._baseline = self._without_rows()
        if not qdrant_edge.installed():
            why, mend = "the package qdrant-edge-py is not installed", "pip install 'memkeep[qdrant]'"
            self._note(msgspec.structs.replace(self._unreadable(why, mend), code="qdrant_reader_missing"))
            return
        try:
            rows, answers = self._read(bits, probes)
        except (StoreError, OSError) as error:
            self._note(self._unreadable(str(error), "restore the snapshot into a server of the same version"))
            return
        try:
            yield from rows.groups()
        finally:
            rows.close()
        facts = self._facts() | {"summary": rows.summary(), "vectors": rows.vectors()} | recall.fact(self._recall)
        state = TableState(rows=rows.count, digest=rows.digest())
        self._baseline = Baseline(tables={self.image.collection: state}, probes=answers, facts=facts)

    def baseline(self) -> Baseline:
        """Return points, digest, facts and probes; after `scan`."""
        return self._baseline or self._without_rows()

    def check(self) -> list[Finding]:
        """Say what could not be read; points are read here unless `scan` has read them."""
        if self._baseline is None:
            for _ in self.scan({}, ()):
                pass
        return [one for one in self._findings if one.severity is Severity.ERROR]

    def moved(self) -> bool:
        """Say whether a shard was written to since (by the number of its last write); no when nobody can tell."""
        return self._where is not None and qdrant_freeze.moved(self._where, self._frozen.clocks)

    def held(self) -> bool:
        """Say yes: the image is a copy."""
        return True

    def omitted(self) -> list[Omission]:
        """Return the shards that could not be read."""
        return list(self._frozen.omitted)

    def findings(self) -> list[Finding]:
        """Return what was noticed."""
        return list(self._findings)

    def close(self) -> None:
        """Let go of nothing: the folder is the caller's."""

    def look_through(self) -> None:
        """Take the digests of all plain vectors, while no other thread is in the way: there are many small ones."""
        for shard in self.image.shards:
            if (marks := self._look_through(shard.id)) is not None:
                self._marks[shard.id] = marks

    def streams(self, *, plain: bool = True) -> list[Iterator[list[Point]]]:
        """Return the points of each shard, in batches in the order of their ids. Raises `StoreError`."""
        return [self._points(shard, plain=plain) for shard in self.image.shards]

    def rows(self, table: TableMap) -> Iterator[list[Row]]:
        """Yield the points of the collection, those of each shard in the order of their ids. Raises `StoreError`."""
        if table.table != self.image.collection:
            raise no_table(table.table, self._part.name)
        if not qdrant_edge.installed():
            raise UnsupportedError(
                "a Qdrant collection can't be read without the package qdrant-edge-py",
                hint="pip install 'memkeep[qdrant]'",
            )
        for shard in self.streams():
            for points in shard:
                yield list(map(point_rows.to_row, points))

    def _points(self, state: ShardImage, *, plain: bool) -> Iterator[list[Point]]:
        shard = self._shard(state.id, plain=plain)
        try:
            yield from _living(shard, frozenset(state.deleted))
        finally:
            shard.close()

    def _read(self, bits: dict[str, int], probes: tuple[Probe, ...] | None) -> tuple[PayloadRows, tuple[Probe, ...]]:
        with self._open_shards() as shards:
            asker = self._asker(shards, probes)
            maps = [map_ for map_ in self._part.maps if map_.table == self.image.collection]
            expected = sum(opened.count for opened, _ in shards)
            rows = PayloadRows(self.image.collection, maps, bits, expected, self._scratch)
            try:
                for state, (opened, deleted) in zip(self.image.shards, shards, strict=True):
                    marks = None
                    if opened.plain and not deleted:
                        marks = self._marks.get(state.id) or self._look_through(state.id)
                    for name, ids, block in opened.blocks() if marks is not None else ():
                        asker.add_block(name, ids, block)
                    for batch in _living(opened, deleted, marks):
                        rows.add(batch)
                        asker.add(batch)
            except BaseException:
                rows.close()
                raise
            self._recall = self._ask(asker)
            return rows, asker.answers(probes)

    def _ask(self, asker: Asker) -> Answers:
        """Have the live server's own search answer the questions too, if nothing has changed since."""
        if self._where is not None:
            with suppress(StoreError), Server(self._where) as server:
                answers = asker.ask(server)
                return {} if self.moved() else answers
        return {}

    def ask(self, server: Server, probes: tuple[Probe, ...]) -> Answers:
        """Ask a server some questions with the vectors that the image has for them. Raises `StoreError`."""
        with self._open_shards() as shards:
            return self._asker(shards, probes).ask(server)

    @contextmanager
    def _open_shards(self) -> "Iterator[list[tuple[Shard, frozenset[int | str]]]]":
        with ExitStack() as stack:
            shards = []
            for shard in self.image.shards:
                shard_opened = self._shard(shard.id, plain=True)
                stack.callback(shard_opened.close)
                shards.append((shard_opened, frozenset(shard.deleted)))
            yield shards

    def _asker(self, shards: list[tuple[Shard, frozenset[int | str]]], probes: tuple[Probe, ...] | None) -> Asker:
        """Choose the questions, or take those given."""
        metrics = {
            name: str(settings["distance"])
            for name, settings in self.image.vectors.items()
            if "multivector_config" not in settings
        }
        if probes is None:
            some = [one for opened, deleted in shards for one in opened.some(QUESTIONS) if one not in deleted]
            each = max(1, QUESTIONS // max(1, len(metrics)))
            wanted = [(name, one) for name in sorted(metrics)[:QUESTIONS] for one in some[:each]]
        else:
            names = {column(name): name for name in metrics}
            wanted = [
                (names[probe.column], int(probe.question) if probe.question.isdecimal() else probe.question)
                for probe in probes
                if probe.kind == "vector" and probe.table == self.image.collection and probe.column in names
            ]
        asked = []
        for opened, deleted in shards if wanted else ():
            there = {point.id: point for point in opened.retrieve([one for _, one in wanted])}
            asked += [(name, there[one]) for name, one in wanted if one in there and one not in deleted]
        return Asker(self.image.collection, metrics, asked)

    def _shard(self, shard: int, *, plain: bool) -> Shard:
        return Shard(qdrant_image.shard_folder(self._folder, shard), self._scratch / f"aside-{shard}", plain=plain)

    def _look_through(self, shard: int) -> Marks | None:
        folder = qdrant_image.shard_folder(self._folder, shard)
        with suppress(UnknownLayoutError, OSError), closing(Shelf(_segments(folder))) as shelf:
            return shelf.marks()
        return None

    def _find_runs(self) -> dict[str, list[Run]]:
        found: dict[str, list[Run]] = {}
        for shard in self.image.shards:
            folder = qdrant_image.shard_folder(self._folder, shard.id)
            with suppress(UnknownLayoutError, OSError):
                shelf = Shelf(_segments(folder))
                for path, run in shelf.runs():
                    name = f"{self._part.name}/{path.relative_to(self._folder).as_posix()}"
                    found.setdefault(name, []).append(run)
                shelf.close()
        return found

    def _without_rows(self) -> Baseline:
        return Baseline(facts=self._facts() | {"summary": {}, "vectors": {}})

    def _facts(self) -> dict[str, Any]:
        cosine = [name for name, settings in self.image.vectors.items() if settings["distance"] == "Cosine"]
        return {
            "qdrant_version": self.image.version,
            "shards": len(self.image.shards),
            "aliases": list(self.image.aliases),
            "indexes": sorted(self.image.indexes),
            "normalised": [column(name) for name in cosine],  # by the server, when they came in
        }

    def _unreadable(self, why: str, mend: str) -> Finding:
        message = f"The points of {self.image.collection} were not read, its files are kept whole: {why}."
        return Finding(
            code="qdrant_unreadable", severity=Severity.WARNING, part=self._part.name, message=message, mend=mend
        )

    def _note(self, finding: Finding) -> None:
        if finding not in self._findings:
            self._findings.append(finding)

    def _path(self, entry: Entry) -> Path:
        return self._folder / entry.path.removeprefix(f"{self._part.name}/")


def _segments(folder: Path) -> list[Path]:
    return sorted(one / "files" for one in (folder / "segments").iterdir())


def _frozen(where: Address, part: str, folder: Path) -> Frozen:
    return Freezer(where, part, folder / "image").freeze()


def _living(shard: Shard, deleted: frozenset[int | str], marks: Marks | None = None) -> Iterator[list[Point]]:
    """Yield the points of a shard without those that had been deleted."""
    for batch in shard.points(marks):
        yield [point for point in batch if point.id not in deleted] if deleted else batch
